"""Finds the unreadable examples of a source before they are needed."""

from concurrent import futures

from pinpp_jax.data import views
from pinpp_jax.data.read.sources import Chosen, Source
from pinpp_jax.errors import DamagedError

_BLOCK = 256  # Examples that a thread takes at once.


def readable(source: Source, threads: int) -> tuple[Chosen, list[str]]:
  """Reads and decodes every example once, with its part mask.

  Returns:
    The readable examples, in order, and the error of each unreadable one.
  """
  starts = range(0, len(source), _BLOCK)
  with futures.ThreadPoolExecutor(max(threads, 1)) as pool:
    blocks = pool.map(
      lambda start: [
        _fault(source, i)
        for i in range(start, min(start + _BLOCK, len(source)))
      ],
      starts,
    )
    found = [fault for block in blocks for fault in block]
  good = [i for i, fault in enumerate(found) if not fault]
  return Chosen(source, good), [fault for fault in found if fault]


def _fault(source: Source, index: int) -> str:
  try:
    example = source[index]
    views.decode(example['image'], example['file_name'])
    if example['part_mask'] is not None:
      views.decode_mask(example['part_mask'], example['file_name'])
  except DamagedError as error:
    return str(error)
  return ''
