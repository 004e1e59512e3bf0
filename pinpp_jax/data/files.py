"""Files that are either whole or not there."""

import json
import os
import pathlib
from typing import Any


def write(path: str | os.PathLike[str], content: str | bytes) -> pathlib.Path:
  """Writes through a temporary neighbour, so no half file is ever seen."""
  target = pathlib.Path(path)
  data = content.encode() if isinstance(content, str) else content
  temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
  try:
    with open(temporary, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, target)
  finally:
    temporary.unlink(missing_ok=True)
  return target


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Writes a value as JSON in the same way."""
  write(path, json.dumps(value, indent=1, ensure_ascii=False) + '\n')
