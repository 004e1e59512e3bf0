"""The notebooks run from top to bottom, small and on the CPU."""

import pathlib

import pytest

from pinpp_jax.data.mini import drawn_release

nbclient = pytest.importorskip(
  'nbclient', reason='the extra notebooks is not installed'
)
import nbformat

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Where they work: in it a few drawings, not built yet."""
  folder = tmp_path_factory.mktemp('notebooks')
  manual = folder / 'data' / 'downloads' / 'manual' / 'pinpp_mini'
  manual.parent.mkdir(parents=True)
  drawn_release.render(manual, annotated=8, unannotated=1, validation=1)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, folder, monkeypatch):
  monkeypatch.setenv('PINPP_NOTEBOOK', 'smoke')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  # Most of the time goes into compiling, for a few small steps.
  monkeypatch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=0')
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  client = nbclient.NotebookClient(
    notebook, timeout=600, resources={'metadata': {'path': str(folder)}}
  )
  client.execute()
  for cell in notebook.cells:
    if 'plt.show()' in cell.source:
      shown = [output.get('data', {}) for output in cell.outputs]
      assert any('image/png' in data for data in shown), cell.id
