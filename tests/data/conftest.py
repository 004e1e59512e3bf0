"""The tiny built data set, once per session."""

import built
import pytest


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('built')
  built.write(folder)
  return folder
