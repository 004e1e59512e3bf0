"""Which accelerators a machine seems to have, found without JAX.

It uses the standard library alone: `pinpp doctor` must run where packages are
missing.
"""

from collections.abc import Mapping
import os
import pathlib
import re


def accelerators(
  root: pathlib.Path = pathlib.Path('/'),
  environment: Mapping[str, str] = os.environ,
) -> dict[str, str]:
  """Returns the accelerators that seem to be there: name -> extra.

  Args:
    root: of the file system to look at.
    environment: variables of the process.
  """
  driver = root / 'proc/driver/nvidia/version'
  text = driver.read_text() if driver.is_file() else ''
  version = re.search(r'Module\s+(?:for \S+\s+)?(\d+)\.', text)
  old = version is not None and int(version[1]) < 580
  signs = {
    'NVIDIA GPU': [*root.glob('dev/nvidia[0-9]*'), *([text] if text else [])],
    'TPU': [*root.glob('dev/accel[0-9]*'), *root.glob('dev/vfio/[0-9]*')]
    + [name for name in ('TPU_NAME', 'COLAB_TPU_ADDR') if name in environment],
  }
  extras = {'NVIDIA GPU': 'cuda12' if old else 'cuda13', 'TPU': 'tpu'}
  return {name: extras[name] for name, found in signs.items() if found}
