"""The images to label, their shards, and the loop that labels them."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import hashlib
import time
from typing import Any

from absl import logging

from pinpp_jax.data.read.pseudo import Draft
from pinpp_jax.data.read.sources import Chosen, Source
from pinpp_jax.errors import UserError
from pinpp_jax.labelling.labeller import Labelled, Labeller

NO_PARTS = 'its class has no parts'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
  """The images to label, cut into blocks, one for each shard.

  Attributes:
    chosen: In the order of their file names.
    shard_size: Images of a block; the last may have fewer.
    skipped: (file name, reason) of images that are not labelled.
  """

  chosen: Chosen
  shard_size: int
  skipped: tuple[tuple[str, str], ...]

  @property
  def blocks(self) -> int:
    """The number of blocks."""
    return -(-len(self.chosen) // self.shard_size)

  def block(self, number: int) -> Chosen:
    """Returns the images of one block."""
    indices = self.chosen.indices
    start = number * self.shard_size
    return Chosen(self.chosen.source, indices[start : start + self.shard_size])

  @property
  def hash(self) -> str:
    """SHA-256 of the label table and the images' file names, in order."""
    digest = hashlib.sha256(self.chosen.labels.hash.encode())
    for i in range(len(self.chosen)):
      digest.update(f'\n{self.chosen.file_name(i)}'.encode())
    return digest.hexdigest()


def choose(source: Source, *, shard_size: int, limit: int = 0) -> Images:
  """Returns the images of a source whose class has parts.

  Args:
    source: Images with a class.
    shard_size: Images of a shard.
    limit: Number of images, evenly spaced over the source; 0 for all.

  Raises:
    UserError: If there are no such images, or a number is out of range.
  """
  if shard_size < 1 or limit < 0:
    raise UserError(
      f'shard_size={shard_size} must be at least 1, and limit={limit} at least'
      ' 0.'
    )
  labels = source.labels
  names = sorted((source.file_name(i), i) for i in range(len(source)))
  has_parts = lambda name: labels.part_counts[
    labels.class_index(name.partition('/')[0])
  ]
  indices = [i for name, i in names if has_parts(name)]
  if not indices:
    raise UserError(
      f'None of the {len(source)} images of the source can be labelled: their'
      ' classes have no parts, or they are annotated already. Check'
      ' config.source.'
    )
  if limit:
    number = min(limit, len(indices))
    indices = [indices[i * len(indices) // number] for i in range(number)]
  return Images(
    chosen=Chosen(source, indices),
    shard_size=shard_size,
    skipped=tuple((n, NO_PARTS) for n, _ in names if not has_parts(n)),
  )


def label(
  images: Images,
  draft: Draft,
  labeller: Labeller,
  mine: Sequence[int],
  stop: Callable[[], bool],
) -> bool:
  """Writes the shards numbered `mine`, leaving out those that are finished.

  Returns:
    False if it was asked to stop before the last one.
  """
  left = [shard for shard in mine if not draft.is_whole(shard)]
  if len(left) < len(mine):
    logging.info(
      '%d of %d shards are finished.', len(mine) - len(left), len(mine)
    )
  progress = Progress([len(images.block(shard)) for shard in left])
  for shard in left:
    if stop():
      logging.info('Asked to stop: the same command resumes here.')
      return False
    found = labeller(images.block(shard))
    draft.write(
      shard,
      records(found),
      [(one.example['file_name'], one.reason) for one in found if one.reason],
    )
    logging.info('%s: %s', draft.name(shard), progress())
  return True


def account(images: Images, draft: Draft) -> tuple[int, int]:
  """Returns how many images were labelled and left out, of all shards.

  Raises:
    UserError: If a shard's are not the images it was given.
  """
  labelled = left_out = 0
  for shard in range(images.blocks):
    note, given = draft.note(shard), len(images.block(shard))
    found = (note.count, len(note.skipped)) if note else (0, 0)
    if sum(found) != given:
      raise UserError(
        f'{draft.folder / draft.name(shard)}: {given} images were given,'
        f' {found[0]} have a label and {found[1]} were left out. Delete the'
        ' shard and run the same command again.'
      )
    labelled, left_out = labelled + found[0], left_out + found[1]
  return labelled, left_out


def records(found: Iterable[Labelled]) -> Iterable[dict[str, Any]]:
  """Yields the records, see `data.read.pseudo`, of all labelled images."""
  for one in found:
    if one.part_mask is not None:
      yield {
        'image': one.example['image'],
        'part_mask': one.part_mask,
        'label': one.example['label'],
        'wnid': one.example['wnid'],
        'file_name': one.example['file_name'],
        'source': 'pseudo',
        'annotations': '[]',
        'confidence': one.confidence,
        'part_confidence': one.part_confidence,
      }


class Progress:
  """Progress lines of this process.

  Args:
    sizes: Number of images of each remaining block.
    clock: Seconds.
  """

  def __init__(
    self,
    sizes: Sequence[int],
    clock: Callable[[], float] = time.monotonic,
  ):
    self._sizes, self._clock, self._start = list(sizes), clock, clock()
    self._block = 0

  def __call__(self) -> str:
    """Returns a line at the end of a block."""
    self._block += 1
    done, total = sum(self._sizes[: self._block]), sum(self._sizes)
    seconds = max(self._clock() - self._start, 1e-9)
    left = round((total - done) * seconds / max(done, 1))
    return (
      f'{done:,}/{total:,} images ({100 * done / max(total, 1):.0f} %)'
      f'  {done / seconds:,.1f} images/s'
      f'  ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}'
    )
