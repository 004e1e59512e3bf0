"""The viewer as a person uses it: load, filter, toggle, keyboard, links."""

import contextlib
import json
import re
import threading
import urllib.parse

import pytest

from pinpp_jax.viewer import open_catalogue, publish, server
from pinpp_jax.viewer.query import Query


@contextlib.contextmanager
def served(catalogue):
  with server.open_server(catalogue, 0) as opened:
    thread = threading.Thread(target=opened.serve_forever, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{opened.server_address[1]}/'
    opened.shutdown()
  catalogue.close()


@pytest.fixture(scope='module')
def catalogue(mini_data, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    yield open_catalogue.open_catalogue('pinpp_mini', data_dir=str(mini_data))


@pytest.fixture(scope='module')
def live(catalogue):
  with served(catalogue) as address:
    yield address


@pytest.fixture(scope='module')
def still(catalogue, tmp_path_factory):
  folder = tmp_path_factory.mktemp('published') / 'site'
  publish.publish(catalogue, folder, Query(), len(catalogue.rows))
  return (folder / 'index.html').as_uri()


@pytest.fixture(params=['live', 'still'])
def address(request):
  """The served page, and the published one: they do the same."""
  return request.getfixturevalue(request.param)


def open_page(tab, address, tiles=60):
  tab.page.goto(address)
  if tiles:
    wait_for_tiles(tab, tiles)


def wait_for_tiles(tab, count):
  tab.until(f'document.querySelectorAll("#tiles li").length === {count}')


def status(tab):
  return tab.page.inner_text('#status')


def fields(tab):
  return dict(urllib.parse.parse_qsl(tab.page.url.partition('#')[2]))


def loaded(tab, selector):
  """Waits until all pictures that match are there, and not broken."""
  tab.until(
    f"""[...document.querySelectorAll('{selector}')].every(
      (image) => image.complete && image.naturalWidth > 0)"""
  )


def test_it_loads_and_turns_pages(tab, address):
  open_page(tab, address)
  assert tab.page.title() == 'pinpp_mini'
  assert status(tab) == '480 images'
  loaded(tab, '#tiles li:nth-child(-n+5) img')
  first = tab.page.inner_text('#tiles li:first-child')
  tab.page.click('text=Next')
  tab.page.wait_for_selector('text=Page 2 of 8')
  assert fields(tab) == {'page': '2'}
  assert tab.page.inner_text('#tiles li:first-child') != first
  tab.page.go_back()
  tab.page.wait_for_selector('text=Page 1 of 8')
  assert tab.page.inner_text('#tiles li:first-child') == first


def test_filters_narrow_and_clear(tab, address):
  open_page(tab, address)
  tab.page.select_option('[name=class]', 'n99000001')
  wait_for_tiles(tab, 40)
  assert status(tab) == '40 of 480 images'
  options = tab.page.inner_text('[name=part]').split('\n')
  assert 'wheel' in options and 'sail' not in options
  tab.page.select_option('[name=split]', 'test')
  wait_for_tiles(tab, 4)
  assert fields(tab) == {'class': 'n99000001', 'split': 'test'}
  tab.page.click('#clear')
  wait_for_tiles(tab, 60)
  assert fields(tab) == {} and tab.page.is_hidden('#clear')
  tab.page.fill('[name=find]', 'bicycle')
  tab.until('document.getElementById("status").innerText.startsWith("40 of")')
  tab.page.fill('[name=find]', 'no such thing')
  wait_for_tiles(tab, 0)
  assert status(tab).startswith('No image fits')


def test_parts_are_found_whatever_the_class(tab, address, catalogue):
  open_page(tab, address)
  tab.page.select_option('[name=part]', 'concept:wheel')
  tab.until(
    '!document.getElementById("status").innerText.includes("so far")'
    ' && !document.getElementById("status").innerText.startsWith("480")'
  )
  catalogue.read_details(wait=True)
  count = int(status(tab).split()[0])
  wheels = {
    part.wnid: part.local_index
    for part in catalogue.labels.parts
    if part.generic_name == 'wheel'
  }
  seen = 0
  for i, name in enumerate(catalogue.rows.names):
    local = wheels.get(name.partition('/')[0])
    seen += local is not None and (catalogue.picture(i).true == local).any()
  assert count == seen > 0


def test_statistics_lead_to_the_images(tab, address):
  open_page(tab, f'{address}#class=n99000001&statistics=on', 40)
  row = tab.page.wait_for_selector('#statistics tbody tr:first-child')
  tab.until(
    '!document.getElementById("statistics").innerText.includes("so far")'
  )
  row = tab.page.query_selector('#statistics tbody tr:first-child')
  name, seen = row.inner_text().split('\t')[:2]
  tab.page.click('#statistics tbody tr:first-child a')
  tab.until(f'document.querySelectorAll("#tiles li").length === {seen}')
  assert name.startswith('wagon') and fields(tab)['part'] == '1'


def test_parts_and_layers_of_one_image(tab, address, catalogue):
  name = catalogue.rows.names[3]
  open_page(tab, f'{address}#image={urllib.parse.quote(name)}', 0)
  tab.page.wait_for_selector('.stage svg path')
  assert tab.page.locator('.stage').count() == 2  # Masks, polygons.
  wnid = name.partition('/')[0]
  parts = catalogue.labels.of_class(wnid)
  boxes = tab.page.locator('#legend input')
  assert boxes.count() == len(parts)
  drawn = tab.page.locator('.stage:first-child path').count()
  boxes.first.uncheck()
  tab.until(
    f'document.querySelectorAll(".stage:first-child path").length < {drawn}'
  )
  assert fields(tab)['hide'] == '1'
  # The box was made anew: it still has the focus.
  assert tab.page.evaluate('document.activeElement.dataset.focus') == 'part 1'
  tab.page.select_option('.stage:first-child select', 'differs')
  tab.page.wait_for_selector(
    '.stage:first-child .layer.differs', state='attached'
  )
  assert fields(tab)['view'] == 'differs,polygons'
  tab.page.click('#compare')
  tab.until('document.querySelectorAll(".stage").length === 1')


def test_the_overlay_can_be_faded_and_left_out(tab, address):
  open_page(tab, address)
  over = '#tiles li:first-child .over'
  assert tab.page.is_visible(over)
  assert tab.page.evaluate(
    f'getComputedStyle(document.querySelector("{over}")).opacity'
  ) == ('0.6')
  tab.page.keyboard.press(']')
  tab.until(
    f'getComputedStyle(document.querySelector("{over}")).opacity === "0.7"'
  )
  tab.page.uncheck('#many [data-tool=overlay]')
  tab.page.wait_for_selector(over, state='hidden')
  assert fields(tab) == {'opacity': '70', 'parts': 'off'}


def test_the_keyboard_is_enough(tab, address):
  page = tab.page
  open_page(tab, address)
  page.keyboard.press('ArrowRight')
  page.keyboard.press('ArrowRight')
  page.keyboard.press('ArrowDown')
  focused = page.evaluate('document.activeElement.dataset.name')
  columns = page.evaluate(
    """[...document.querySelectorAll('#tiles a')].filter((node, i, all) =>
      node.offsetTop === all[0].offsetTop).length"""
  )
  names = page.eval_on_selector_all(
    '#tiles a', 'nodes => nodes.map((node) => node.dataset.name)'
  )
  assert focused == names[1 + columns]
  page.keyboard.press('Enter')
  page.wait_for_selector('.stage svg path')
  assert fields(tab)['image'] == focused
  page.keyboard.press('ArrowRight')
  tab.until(
    f'location.hash.includes(encodeURIComponent("{names[2 + columns]}"))'
  )
  page.wait_for_selector('#image[aria-busy=false]')
  page.keyboard.press('1')
  tab.until('location.hash.includes("hide=1")')
  page.keyboard.press('Escape')
  wait_for_tiles(tab, 60)
  tab.until(f'document.activeElement.dataset.name === "{names[2 + columns]}"')
  page.keyboard.press('/')
  assert page.evaluate('document.activeElement.name') == 'find'
  page.keyboard.type('o')  # A letter here, not a command.
  page.keyboard.press('Escape')
  page.keyboard.press('?')
  assert page.is_visible('#help')
  page.keyboard.press('Escape')
  assert page.is_hidden('#help')


def test_the_next_image_may_be_on_the_next_page(tab, address):
  open_page(tab, address)
  names = [
    tab.page.get_attribute(f'#tiles li:{which}-child a', 'data-name')
    for which in ('first', 'last')
  ]
  tab.page.click('#tiles li:last-child a')
  tab.page.wait_for_selector('.stage svg path')
  tab.page.keyboard.press('ArrowRight')
  tab.until('location.hash.includes("page=2")')
  assert fields(tab)['image'] not in names
  tab.page.wait_for_selector('.stage svg path')
  tab.page.keyboard.press('ArrowLeft')
  tab.until('!location.hash.includes("page=2")')
  assert fields(tab)['image'] == names[1]


def test_an_image_that_is_not_there_is_said_so(tab, address):
  open_page(tab, f'{address}#image=n99000001/n99000001_9999.JPEG', 0)
  tab.page.wait_for_selector('text=There is no image')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [360, 1300])
def test_nothing_sticks_out(tab, address, catalogue, scheme, width):
  tab.page.emulate_media(color_scheme=scheme)
  tab.page.set_viewport_size({'width': width, 'height': 800})
  for hash_ in ('', '#statistics=on', f'#image={catalogue.rows.names[0]}'):
    tab.page.goto('about:blank')
    open_page(tab, f'{address}{hash_}', 0)
    ready = '.stage svg' if 'image' in hash_ else '#tiles li'
    tab.page.wait_for_selector(ready)
    wide = tab.page.evaluate('document.documentElement.scrollWidth')
    assert wide <= width
    assert contrast(tab.page) > 7


def contrast(page):
  """Returns the contrast of text and ground, as WCAG 2 defines it."""
  colours = page.evaluate(
    """(() => { const style = getComputedStyle(document.body);
      return [style.color, style.backgroundColor]; })()"""
  )

  def luminance(colour):
    levels = [int(n) / 255 for n in re.findall(r'\d+', colour)[:3]]
    linear = [
      x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
      for x in levels
    ]
    return sum(
      a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )

  low, high = sorted(map(luminance, colours))
  return (high + 0.05) / (low + 0.05)


def test_names_are_text_and_nothing_else(tab, mini_data, tmp_path):
  """A release may hold any names; none of them is HTML."""
  release = tmp_path / 'release'
  (release / 'json').mkdir(parents=True)
  evil = '</script><img src=x onerror="document.title=1">'
  (release / 'json' / 'n00000001.json').write_text(
    json.dumps(
      {
        'images': [
          {
            'id': 1,
            'width': 20,
            'height': 10,
            'file_name': 'n00000001/n00000001_1.JPEG',
          }
        ],
        'categories': [{'id': 1, 'name': evil, 'supercategory': evil}],
        'annotations': [
          {
            'id': 1,
            'image_id': 1,
            'category_id': 1,
            'segmentation': [[1, 1, 9, 1, 9, 9]],
          }
        ],
      }
    )
  )
  with served(open_catalogue.open_catalogue(str(release))) as address:
    open_page(tab, f'{address}#statistics=on', 1)
    assert evil in tab.page.inner_text('#tiles')
    tab.page.click('#tiles a')
    tab.page.wait_for_selector('.stage svg path')
    assert evil in tab.page.inner_text('#facts')
    assert tab.page.title() != '1'
