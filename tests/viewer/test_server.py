"""The page over HTTP: what it answers, and to whom."""

import http.client
import json
import socket
import threading

import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.viewer import server


@pytest.fixture(scope='module')
def opened(released):
  with server.open_server(released, 0) as found:
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()


@pytest.fixture
def ask(opened):
  """Sends one request line as it is; returns status, headers, body."""
  port = opened.server_address[1]

  def send(path, host=None, method='GET'):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
    connection._validate_path = lambda _: None
    connection._encode_request = lambda text: text.encode('latin-1')
    connection.putrequest(method, path, skip_host=True)
    if host != '':
      connection.putheader('Host', host or f'127.0.0.1:{port}')
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body

  return send


def test_it_listens_on_this_machine_alone(opened):
  assert opened.socket.getsockname()[0] == '127.0.0.1'
  assert opened.socket.family == socket.AF_INET


def test_a_port_that_is_taken_is_one_line(opened, released):
  with pytest.raises(UserError, match='--port'):
    server.open_server(released, opened.server_address[1])


def test_every_address_answers(ask, released):
  status, headers, body = ask('/')
  assert status == 200 and headers['Content-Type'].startswith('text/html')
  assert "default-src 'none'" in headers['Content-Security-Policy']
  assert headers['Cross-Origin-Resource-Policy'] == 'same-origin'
  assert b'https://' not in body and b'src="http' not in body
  listing = json.loads(ask('/api/images?class=n99000001&count=5')[2])
  assert len(listing['rows']) == 5
  row = listing['rows'][3]
  place = json.loads(ask(f'/api/place?name={row["name"]}')[2])
  assert place == {'id': row['id']}
  detail = json.loads(ask(f'/api/image/{row["id"]}')[2])
  assert detail['name'] == row['name'] and detail['layers']['true']
  status, headers, body = ask(f'/image/{row["id"]}')
  assert headers['Content-Type'] == 'image/jpeg'
  assert body == released.picture(row['id']).image
  assert ask(f'/thumbnail/{row["id"]}')[2].startswith(b'\xff\xd8')
  assert ask(f'/parts/{row["id"]}?part=2')[2].startswith(b'\x89PNG')
  assert json.loads(ask('/api/statistics')[2])['rows']


def test_head_has_no_body(ask):
  status, headers, body = ask('/', method='HEAD')
  assert status == 200 and int(headers['Content-Length']) > 1000 and not body


@pytest.mark.parametrize(
  'path',
  [
    '/../pyproject.toml',
    '/image/../../etc/passwd',
    '/image/%2e%2e/%2e%2e/etc/passwd',
    '/image/..%2f..%2fetc%2fpasswd',
    '/image/%252e%252e%252fetc%252fpasswd',
    '/image//etc/passwd',
    '//etc/passwd',
    '/etc/passwd',
    'http://127.0.0.1/etc/passwd',
    'file:///etc/passwd',
    '/image/0%00.jpg',
    '/image/0\x00',
    '/image/0/',
    '/image/-1',
    '/image/999999999',
    '/image/99999999999999999999',
    '/image/1e1',
    '/image/²',
    '/thumbnail/',
    '/api',
    '/api/image/0/../1',
    '/viewer.css',
    '/favicon.ico',
    '/images/n99000001/n99000001_1.JPEG',
    '/%',
    '*',
  ],
)
def test_there_is_nothing_else(ask, path):
  status, _, body = ask(path)
  assert status == 404
  assert body == b'there is nothing here\n'


@pytest.mark.parametrize(
  'path',
  [
    '/api/images?',
    '/api/images?class',
    '/api/images?class=n99000001&class=n99000002',
    '/api/images?class=../../etc',
    '/api/images?page=0',
    '/api/images?page=-1',
    '/api/images?count=1000000',
    '/api/images?low=nan',
    '/api/images?part=%00',
    '/api/images?find=%ff%fe',
    '/api/images?find=%0d%0aSet-Cookie:x',
    '/api/images?nonsense=1',
    '/api/images?a=1;b=2',
    '/api/images?' + '&'.join(f'a{i}=1' for i in range(100)),
    '/api/statistics?order=areas',
    '/api/place',
    '/api/place?name=a&name=b',
    '/api/place?id=3',
    '/parts/0?part=x',
  ],
)
def test_malformed_questions_get_one_line(ask, path):
  status, headers, body = ask(path)
  if path.endswith('?'):  # An empty query is none.
    assert status == 200
    return
  assert status == 400
  assert headers['Content-Type'].startswith('text/plain')
  text = body.decode()
  assert text.endswith('\n') and text.count('\n') == 1
  assert 'Traceback' not in text
  assert 'Set-Cookie' not in headers


def test_an_unknown_name_is_not_there(ask):
  for name in ('nobody', '../../etc/passwd', '/etc/passwd', '%00'):
    assert json.loads(ask(f'/api/place?name={name}')[2]) == {'id': None}


@pytest.mark.parametrize(
  'host',
  ['', 'example.org', 'example.org:80', '127.0.0.1.example.org', '[::1]'],
)
def test_other_names_are_turned_away(ask, host):
  """Another site's page cannot reach it by a name that leads here."""
  assert ask('/', host=host)[0] == 403


def test_a_tunnel_may_have_another_port(ask):
  assert ask('/', host='localhost:1234')[0] == 200
  assert ask('/', host='localhost')[0] == 200


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'OPTIONS'])
def test_nothing_can_be_changed(ask, method):
  assert ask('/api/images', method=method)[0] == 501


def test_a_broken_request_ends_its_connection_alone(opened, ask):
  with socket.create_connection(opened.server_address[:2], timeout=20) as one:
    one.sendall(b'\x00\xff nonsense\r\n\r\n')
    assert b'400' in one.recv(1000)
  assert ask('/')[0] == 200
