"""Links of pages lead to the file they name, whatever its name."""

from urllib import parse

import pytest

from pinpp_jax.report import template


@pytest.mark.parametrize(
  'folder', ['run', 'javascript:alert(1)', 'a b?c#d%e', '"<x>', 'f\u00fcr/x']
)
def test_a_link_is_a_relative_address(folder, tmp_path):
  page = tmp_path / 'pages' / 'page.html'
  for place, start in ((page.parent, './'), (tmp_path, '../')):
    target = place / folder / 'report.html'
    link = template.link(target, page)
    assert link.startswith(start)
    found = parse.urlparse(link)
    assert not (found.scheme or found.netloc or found.query or found.fragment)
    assert not set(link) & set('"<> ')
    assert (page.parent / parse.unquote(link)).resolve() == target.resolve()
