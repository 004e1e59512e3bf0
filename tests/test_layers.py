"""Who may import whom, and how long a function may be."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'pinpp_jax'
SOURCES = sorted(PACKAGE.rglob('*.py'))

# Package: the parts of pinpp_jax that it may import, besides itself.
OURS = {
  'attacks': {'errors', 'objectives'},
  'data': {'errors'},
  'evals': {'attacks', 'construct', 'data', 'errors', 'metrics', 'processes'},
  'exports': {'data', 'errors'},
  'labelling': {'data', 'errors', 'evals', 'report'},
  'models': {'errors'},
  'objectives': {'errors'},
  'viewer': {'data', 'errors', 'evals'},
}
# Package: what else it may import; the standard library is always allowed.
OTHERS = {
  'attacks': {'jax', 'numpy'},
  'evals': {'flax', 'jax', 'numpy'},
  'exports': {'PIL', 'numpy', 'pyarrow', 'pycocotools'},
  'labelling': {'PIL', 'absl', 'jax', 'jinja2', 'numpy'},
  'models': {'absl', 'flax', 'jax', 'numpy', 'safetensors', 'torch'},
  'objectives': {'flax', 'jax'},
  'viewer': {'PIL', 'jinja2', 'numpy'},
}


def imports(path):
  """Yields the full dotted name of everything a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def third_party(names):
  import sys

  tops = {name.split('.')[0] for name in names}
  return tops - set(sys.stdlib_module_names) - {'pinpp_jax'}


@pytest.mark.parametrize('package', sorted(OURS))
def test_packages_only_look_down(package):
  for path in (PACKAGE / package).rglob('*.py'):
    ours = {
      name.split('.')[1]
      for name in imports(path)
      if name.startswith('pinpp_jax.')
    }
    assert ours <= OURS[package] | {package}, path


@pytest.mark.parametrize('package', sorted(OTHERS))
def test_packages_use_few_libraries(package):
  for path in (PACKAGE / package).rglob('*.py'):
    assert third_party(imports(path)) <= OTHERS[package], path


def test_data_never_imports_jax():
  for path in (PACKAGE / 'data').rglob('*.py'):
    assert not {'jax', 'flax', 'torch', 'tensorflow'} & third_party(
      imports(path)
    ), path


def test_configs_never_import_the_package():
  for path in (ROOT / 'configs').glob('*.py'):
    tops = {name.split('.')[0] for name in imports(path)}
    assert tops <= {'configs', 'ml_collections', 'typing'}, path


def test_nothing_imports_tensorflow_or_torch_at_module_level():
  for path in SOURCES:
    for node in ast.parse(path.read_text()).body:
      names = (
        [alias.name for alias in node.names]
        if isinstance(node, ast.Import)
        else [node.module or '']
        if isinstance(node, ast.ImportFrom)
        else []
      )
      assert not any(
        name.split('.')[0] in ('tensorflow', 'torch') for name in names
      ), path


@pytest.mark.parametrize(
  'path', SOURCES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_functions_are_short(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      assert node.end_lineno - node.lineno + 1 < 80, node.name


def test_suppressions_give_a_reason():
  marks = ('noqa', 'type: ignore', 'pyright: ignore')
  for path in [*SOURCES, *(ROOT / 'configs').glob('*.py')]:
    for line in path.read_text().splitlines():
      for mark in marks:
        if f'# {mark}' in line:
          assert line.split(f'# {mark}', 1)[1].count(' ') > 2, (path, line)


def test_autoattack_for_others_needs_jax_and_numpy_alone():
  names = {
    *('processes', 'evals.autoattack', 'evals.checks', 'evals.given'),
    *('evals.job', 'evals.outcome', 'evals.verdicts', 'evals.versions'),
  }
  for name in names:
    path = PACKAGE / f'{name.replace(".", "/")}.py'
    found = list(imports(path))
    assert third_party(found) <= {'jax', 'numpy'}, path
    ours = {n for n in found if n.startswith('pinpp_jax.')}
    allowed = {'attacks', 'errors'} | names
    for n in ours:
      inner = n.removeprefix('pinpp_jax.')
      assert any(inner.startswith(a) for a in allowed), (path, n)
