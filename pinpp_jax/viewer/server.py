"""The page over HTTP, for this machine alone.

Addresses lead to a few functions, never to files: what is served is what the
catalogue lists.
"""

from collections.abc import Mapping, Sequence
import functools
import http
import http.server
import json
import re
import sys
import urllib.parse

from pinpp_jax.errors import UserError
from pinpp_jax.viewer import page_json, render, thumbnails
from pinpp_jax.viewer import query as query_lib
from pinpp_jax.viewer.catalogue import Catalogue

HOST = '127.0.0.1'
_KEPT = 512  # Small pictures held in memory,
_OPENED = 64  # and images with their masks: each is asked for twice.
_PLACE = re.compile(r'/(api/image|image|thumbnail|parts)/(\d{1,9})')
# What another site's page makes a browser ask for has that site's name.
_NAMES = {'127.0.0.1', 'localhost'}
_RULES = (
  "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline';"
  " script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none';"
  " form-action 'none'; frame-ancestors 'none'"
)
_SIGNATURES = {
  b'\xff\xd8': 'image/jpeg',
  b'\x89P': 'image/png',
  b'GI': 'image/gif',
  b'BM': 'image/bmp',
}

Answer = tuple[str, bytes]  # Content type and content.


class NotThere(Exception):
  """There is nothing at an address."""


class Site:
  """Answers addresses from a catalogue.

  Args:
    catalogue: What is shown.
  """

  def __init__(self, catalogue: Catalogue):
    self._catalogue = catalogue
    self._page = render.live(catalogue).encode()
    self._picture = functools.lru_cache(_OPENED)(catalogue.picture)
    self._thumbnail = functools.lru_cache(_KEPT)(self._draw)

  def answer(self, address: str) -> Answer:
    """Returns what is at a path with its query.

    Raises:
      NotThere: nothing is.
      UserError: the query is malformed, or the image cannot be read.
    """
    path, _, words = address.partition('?')
    fields = _fields(words)
    if path == '/':
      return 'text/html; charset=utf-8', self._page
    if path == '/api/images':
      return _json(page_json.listing(self._catalogue, self._query(fields)))
    if path == '/api/statistics':
      return _json(page_json.statistics(self._catalogue, self._query(fields)))
    if path == '/api/place':
      return _json({'id': self._named(fields)})
    match = _PLACE.fullmatch(path)
    index = int(match[2]) if match else len(self._catalogue.rows)
    if match is None or index >= len(self._catalogue.rows):
      raise NotThere
    if match[1] == 'api/image':
      return _json(page_json.detail(self._catalogue, index))
    if match[1] == 'image':
      return self._image(index)
    if match[1] == 'thumbnail':
      return self._thumbnail(index)
    return 'image/png', thumbnails.parts(
      self._picture(index), self._wanted(index, fields)
    )

  def _query(self, fields: Mapping[str, Sequence[str]]) -> query_lib.Query:
    table, splits = self._catalogue.labels, self._catalogue.splits
    return query_lib.parse(fields, table, splits)

  def _named(self, fields: Mapping[str, Sequence[str]]) -> int | None:
    """Returns the place of the image that is named, None without one."""
    if list(fields) != ['name'] or len(fields['name']) != 1:
      raise UserError('the name of one image is needed')
    names, name = self._catalogue.rows.names, fields['name'][0]
    return names.index(name) if name in names else None

  def _image(self, index: int) -> Answer:
    image = self._picture(index).image
    if image is None:
      raise NotThere
    kind = _SIGNATURES.get(image[:2], 'application/octet-stream')
    return kind, image

  def _draw(self, index: int) -> Answer:
    name = self._catalogue.rows.names[index]
    return 'image/jpeg', thumbnails.photograph(self._picture(index), name)

  def _wanted(
    self, index: int, fields: Mapping[str, Sequence[str]]
  ) -> list[int]:
    """Returns the local indices of the parts that a query asks for."""
    query, table = self._query(fields), self._catalogue.labels
    if not query.part and not query.concept:
      return []
    label = self._catalogue.rows.label[index]
    return [
      i for i, yes in enumerate(query_lib.parts(query, table)[label], 1) if yes
    ]


def _fields(words: str) -> dict[str, list[str]]:
  try:
    return urllib.parse.parse_qs(
      words,
      keep_blank_values=True,
      strict_parsing=bool(words),
      errors='strict',
      max_num_fields=40,
    )
  except ValueError as error:
    raise UserError(f'the query cannot be read: {error}') from error


def _json(value: object) -> Answer:
  text = json.dumps(value, ensure_ascii=False, separators=(',', ':'))
  return 'application/json', text.encode()


class _Handler(http.server.BaseHTTPRequestHandler):
  """One connection. Mistakes end in a status and one line."""

  protocol_version = 'HTTP/1.1'
  server_version, sys_version = 'pinpp', ''
  timeout = 60
  site: Site

  def do_GET(self):  # noqa: N802 (the name that http.server calls)
    host = (self.headers.get('Host') or '').rpartition(':')[0]
    if (host or self.headers.get('Host')) not in _NAMES:
      self._send(http.HTTPStatus.FORBIDDEN, *_line('this is for 127.0.0.1'))
      return
    try:
      kind, body = self.site.answer(self.path)
    except NotThere:
      self._send(http.HTTPStatus.NOT_FOUND, *_line('there is nothing here'))
    except UserError as error:
      self._send(http.HTTPStatus.BAD_REQUEST, *_line(str(error)))
    else:
      self._send(http.HTTPStatus.OK, kind, body)

  do_HEAD = do_GET

  def _send(self, status: http.HTTPStatus, kind: str, body: bytes) -> None:
    self.send_response(status)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(body)))
    self.send_header('Cache-Control', 'no-store')
    self.send_header('Content-Security-Policy', _RULES)
    self.send_header('X-Content-Type-Options', 'nosniff')
    self.send_header('Referrer-Policy', 'no-referrer')
    self.send_header('Cross-Origin-Resource-Policy', 'same-origin')
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(body)

  def log_message(self, format, *args):  # noqa: A002 (the name of its parent)
    """Keeps the terminal quiet."""


def _line(text: str) -> Answer:
  printable = ''.join(c if c.isprintable() else '?' for c in text)
  return 'text/plain; charset=utf-8', f'{printable}\n'.encode()


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  # Clients that may wait to be accepted; the standard library has 5.
  request_queue_size = 128

  def handle_error(self, request, client_address):
    """Says nothing of a browser that has gone; of all else, one line."""
    error = sys.exception()
    if not isinstance(error, ConnectionError | TimeoutError):
      print(f'pinpp view: {error!r}', file=sys.stderr)


def open_server(
  catalogue: Catalogue, port: int
) -> http.server.ThreadingHTTPServer:
  """Returns a server that listens on the loopback address.

  Args:
    catalogue: What is shown.
    port: Where; 0 for any that is free.

  Raises:
    UserError: the port is taken.
  """
  handler = type('Handler', (_Handler,), {'site': Site(catalogue)})
  try:
    return _Server((HOST, port), handler)
  except OSError as error:
    raise UserError(
      f'port {port} cannot be used ({error.strerror}); give another --port, or'
      ' 0 for any that is free.'
    ) from error
