"""Pages in headless Chromium, which may talk to this machine alone."""

import os
import pathlib
import time

import pytest

CHROMIUM = pathlib.Path('/usr/bin/chromium')
FLAGS = (
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
  """A browser with a profile of its own.

  For one module: as long as it is open its event loop runs, beside which other
  tests could start none.
  """
  if not CHROMIUM.exists() and not os.environ.get('CI'):
    pytest.skip(f'no {CHROMIUM}: run scripts/install_chromium.sh')
  from playwright import sync_api

  with sync_api.sync_playwright() as playwright:
    profile = tmp_path_factory.mktemp('profile')
    context = playwright.chromium.launch_persistent_context(
      str(profile),
      executable_path=str(CHROMIUM),
      headless=True,
      args=list(FLAGS),
      viewport={'width': 1300, 'height': 900},
    )
    yield context
    context.close()


class Watched:
  """A tab, and everything it complained about or asked for.

  Attributes:
    page: Playwright's page.
    complaints: Errors and warnings of the console, uncaught exceptions.
    requests: Addresses.
  """

  def __init__(self, page):
    self.page = page
    self.complaints: list[str] = []
    self.requests: list[str] = []
    page.on('pageerror', lambda error: self.complaints.append(str(error)))
    page.on('console', self._console)
    page.on('request', lambda request: self.requests.append(request.url))
    page.on('requestfailed', self._failed)

  def _console(self, message):
    if message.type in ('error', 'warning'):
      self.complaints.append(message.text)

  def _failed(self, request):
    # Pictures that scroll out of view or of a page that was left.
    if 'ABORTED' not in (request.failure or ''):
      self.complaints.append(f'{request.url}: {request.failure}')

  def until(self, expression: str, seconds: float = 30) -> None:
    """Returns when an expression is true; Playwright's own wait needs eval."""
    end = time.monotonic() + seconds
    while not self.page.evaluate(expression):
      assert time.monotonic() < end, expression
      self.page.wait_for_timeout(50)

  def strangers(self, *allowed: str) -> list[str]:
    """Returns what was asked for elsewhere than from the allowed places."""
    return [url for url in self.requests if not url.startswith(allowed)]


@pytest.fixture
def tab(chromium):
  page = chromium.new_page()
  page.set_default_timeout(30_000)
  watched = Watched(page)
  yield watched
  page.close()
  assert watched.complaints == []
  assert watched.strangers('http://127.0.0.1:', 'data:', 'file:///') == []
