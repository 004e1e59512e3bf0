"""The viewer's first page on a large data set: seconds, memory, records read.

  python -m benchmarks.viewer
  python -m benchmarks.viewer --folder=FOLDER   # kept, and used again
  python -m benchmarks.viewer --details         # and the first filter by part
  python -m benchmarks.viewer --quick

The images of `pinpp_mini`, repeated under different names, are written as a set
of pseudo labels and served by `pinpp view` in a separate process. The first
visit is timed: the page, its list of images, and every picture on it.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np

from pinpp_jax.data.build import run
from pinpp_jax.data.mini import drawn_release
from pinpp_jax.data.read import pseudo
from pinpp_jax.data.read.pseudo import Draft
from pinpp_jax.data.read.sources import Recorded

_SHARD = 5_000


def repeated(folder: pathlib.Path, number: int) -> pathlib.Path:
  """Writes a set of `number` records and returns its version's folder."""
  output = folder / pseudo.NAME / pseudo.RELEASE
  if output.is_dir():
    return output
  manual = folder / 'downloads' / 'manual' / 'pinpp_mini'
  manual.parent.mkdir(parents=True)
  drawn_release.render(manual, annotated=4, unannotated=0, validation=0)
  run.build('pinpp_mini', folder)
  source = Recorded(dataset='pinpp_mini', data_dir=str(folder), split='train')
  examples = [dict(source[i]) for i in range(len(source))]
  shards = -(-number // _SHARD)
  draft = Draft(output=output, labels=source.labels, shards=shards)
  draft.begin({'made': 'by repetition'})
  endless = itertools.cycle(examples)
  for shard in range(shards):
    places = range(shard * _SHARD, min((shard + 1) * _SHARD, number))
    rows = [_record(next(endless), i, source) for i in places]
    draft.write(shard, rows)
  draft.publish()
  return output


def _record(example: dict, place: int, source: Recorded) -> dict:
  wnid = example['wnid']
  parts = len(source.labels.of_class(wnid))
  return example | {
    'file_name': f'{wnid}/{wnid}_{100_000 + place}.JPEG',
    'source': 'pseudo',
    'annotations': '[]',
    'confidence': place % 1000 / 1000,
    'part_confidence': np.full(parts, 0.5, np.float32),
  }


def get(address: str) -> bytes:
  """Returns what is at an address."""
  with urllib.request.urlopen(address) as answer:
    return answer.read()


def visit(address: str) -> tuple[float, int]:
  """Returns the seconds of a first visit, and how many images it showed."""
  start = time.perf_counter()
  get(address)
  rows = json.loads(get(f'{address}api/images'))['rows']
  for row in rows:
    get(f'{address}thumbnail/{row["id"]}')
    get(f'{address}parts/{row["id"]}')
  return time.perf_counter() - start, len(rows)


def memory(process: subprocess.Popen) -> float:
  """Returns the largest memory that a process has held, in MB (Linux)."""
  status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
  lines = dict(line.split(':', 1) for line in status.splitlines())
  return int(lines['VmHWM'].split()[0]) / 1000


def processor(process: subprocess.Popen) -> float:
  """Returns the CPU seconds of a process (Linux)."""
  status = pathlib.Path(f'/proc/{process.pid}/stat').read_text()
  user, system = status.rpartition(')')[2].split()[11:13]
  return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def main() -> None:
  """Prints one line per measurement."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--records', type=int, default=100_000)
  parser.add_argument('--folder', default='', help='for the records')
  parser.add_argument('--details', action='store_true', help='read all images')
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  number = 200 if options.quick else options.records
  with tempfile.TemporaryDirectory() as name:
    folder = repeated(pathlib.Path(options.folder or name), number)
    words = [sys.executable, '-m', 'pinpp_jax.tools.view', str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(
      [*words, '--port=0'],
      stdout=subprocess.PIPE,
      text=True,
      env=_environment(name),
    )
    try:
      assert process.stdout is not None
      images = process.stdout.readline().split(': ')[1].strip()
      address = process.stdout.readline().split()[0]
      print(f'{images}, {os.getloadavg()[0]:.1f} processes at work')
      print(f'start of the program   {time.perf_counter() - start:8.2f} s')
      measure(address, process)
      if options.details or options.quick:
        measure_details(address, process)
    finally:
      process.terminate()
      process.wait()


def measure(address: str, process: subprocess.Popen) -> None:
  """Prints time and memory of a first visit."""
  before = processor(process)
  seconds, images = visit(address)
  spent = processor(process) - before
  print(f'first page             {seconds:8.2f} s, {images} images')
  print(f'its processor time     {spent:8.2f} s')
  print(f'largest memory         {memory(process):8.0f} MB')


def measure_details(address: str, process: subprocess.Popen) -> None:
  """Prints time and memory of the first filter that needs more than names."""
  print(f'details of all images  {_details(address):8.1f} s, once')
  start = time.perf_counter()
  get(f'{address}api/images?low=0.5&order=confidence')
  print(f'filter and order       {time.perf_counter() - start:8.2f} s')
  print(f'largest memory         {memory(process):8.0f} MB')


def _environment(folder: str) -> dict[str, str]:
  return dict(os.environ) | {'XDG_CACHE_HOME': folder, 'JAX_PLATFORMS': 'cpu'}


def _details(address: str) -> float:
  """Returns the seconds until every image can be filtered by part."""
  start = time.perf_counter()
  while True:
    found = json.loads(get(f'{address}api/images?low=0.5&count=1'))
    if found['done'] == found['images']:
      return time.perf_counter() - start
    time.sleep(0.2)


if __name__ == '__main__':
  main()
