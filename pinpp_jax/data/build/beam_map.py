"""`map` over many items, done by the workers of a Beam pipeline."""

from collections.abc import Callable, Iterable, Iterator
import functools
import importlib
import os
import pathlib
import pickle
import shutil
import tempfile
from typing import Any
import uuid

from pinpp_jax.errors import UserError


def mapper(
  folder: str | os.PathLike[str], options: Any, runner: Any = None
) -> Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]:
  """Returns a function that takes the place of `map`.

  A pipeline has no results: they come back through files. Function, items and
  results are pickled. The first item's `UserError` is raised, as `map` would.

  Args:
    folder: Where the files lie until they are read; workers must see it at the
      same path.
    options: Beam's `PipelineOptions`.
    runner: Beam's, if the options do not say.
  """
  beam = importlib.import_module('apache_beam')  # Of the extra tfds-cli.

  def each(function, items):
    numbered = list(enumerate(items))
    place = pathlib.Path(tempfile.mkdtemp(dir=folder))
    with beam.Pipeline(options=options, runner=runner) as pipeline:
      work = functools.partial(_keep, place, function)
      _ = (
        pipeline
        | beam.Create(numbered)
        | beam.Reshuffle()
        | beam.MapTuple(work)
      )
    return _results(place, len(numbered))

  return each


def _keep(
  place: pathlib.Path, function: Callable[[Any], Any], number: int, item: Any
) -> None:
  """Writes what a function makes of an item."""
  try:
    result = function(item)
  except UserError as error:
    result = error
  # Two workers may be given the same item, if one seems to be lost.
  partial = place / uuid.uuid4().hex
  partial.write_bytes(pickle.dumps(result))
  partial.replace(place / str(number))


def _results(place: pathlib.Path, count: int) -> Iterator[Any]:
  try:
    for number in range(count):
      path = place / str(number)
      result = pickle.loads(path.read_bytes())
      path.unlink()
      if isinstance(result, UserError):
        raise result
      yield result
  finally:
    shutil.rmtree(place)
