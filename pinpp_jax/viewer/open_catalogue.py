"""From what a person names to a catalogue."""

from collections.abc import Callable, Iterable, Sequence
import json
import pathlib

from pinpp_jax.data.read import open_any, pseudo, sources
from pinpp_jax.errors import UserError
from pinpp_jax.viewer.catalogue import Catalogue
from pinpp_jax.viewer.recorded import RecordedCatalogue


def open_catalogue(
  source: str,
  *,
  data_dir: str = '',
  imagenet_dir: str = '',
  truth: str = '',
  progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Catalogue:
  """Returns a release, a run's predictions or a built data set.

  Args:
    source: A release folder; the folder of a run; or a built data set, as
      `locate.data_set` takes it. A run that drew labels stands for these.
    data_dir: Where built data sets lie.
    imagenet_dir: The images of a release, if they are not in it.
    truth: Folder with true masks of predicted ones, `<wnid>/<stem>.png`.
    progress: Passes the classes of a release on.

  Raises:
    UserError: Nothing of these is there.
  """
  folder = pathlib.Path(source).expanduser()
  true_masks = pathlib.Path(truth).expanduser() if truth else None
  if open_any.is_release(folder):
    # What only one kind of source needs is imported for it alone.
    from pinpp_jax.viewer.released import ReleasedCatalogue

    return ReleasedCatalogue(folder, imagenet_dir, progress)
  if (folder / 'config.json').is_file():
    return _of_run(folder, data_dir, true_masks)
  return RecordedCatalogue(open_any.data_set(source, data_dir), true_masks)


def _of_run(
  folder: pathlib.Path, data_dir: str, truth: pathlib.Path | None
) -> Catalogue:
  config = json.loads((folder / 'config.json').read_text())
  if config['run'] != 'label':
    from pinpp_jax.viewer.sampled import SampledCatalogue

    return SampledCatalogue(folder)
  root = sources.data_folder(data_dir or config['data']['data_dir'])
  made = root / (config['output'] or f'{pseudo.NAME}/{pseudo.RELEASE}')
  if not (made / 'dataset_info.json').is_file():
    raise UserError(
      f'{folder} has not finished {made}: give the command that began it once'
      ' more.'
    )
  if truth is None and config['truth']:
    known = root / config['truth']
    truth = known if known.is_dir() else None
  return RecordedCatalogue(made, truth)
