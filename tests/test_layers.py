"""Who may import whom, and how long a function may be."""

import ast
import collections
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'pinpp_jax'
SOURCES = sorted(PACKAGE.rglob('*.py'))

# Package or module: the parts of pinpp_jax that it may import, besides itself.
_HELPERS = {'construct', 'data', 'errors', 'machine', 'metrics', 'sharding'}
_RUN = _HELPERS | {
  *('attacks', 'checkpoint', 'evals', 'inputs', 'models', 'objectives'),
  *('recipe', 'runs', 'state'),
}
OURS = {
  'attacks': {'errors', 'objectives'},
  'augment': {'errors'},
  'checkpoint': {'data', 'errors'},
  'construct': {'errors'},
  'data': {'errors', 'machine'},
  'errors': set(),
  'evals': {'attacks', 'construct', 'data', 'errors', 'machine', 'metrics'},
  'evaluate': _RUN | {'report'},
  'exports': {'data', 'errors'},
  'heatmaps': {'data', 'errors'},
  'inputs': _HELPERS,
  'label': _RUN | {'labelling'},
  'labelling': {'data', 'errors', 'evals', 'report'},
  'machine': {'errors'},
  'main': {'errors', 'evaluate', 'label', 'machine', 'runs', 'train'},
  'metrics': {'errors', 'machine'},
  'models': {'errors'},
  'objectives': {'errors'},
  'optim': {'construct', 'errors'},
  'recipe': _RUN | {'augment', 'optim', 'step'},
  'report': {'data', 'errors', 'evals', 'metrics'},
  'runs': {'checkpoint', 'construct', 'data', 'errors', 'machine'},
  'sharding': {'errors'},
  'state': {'errors'},
  'step': {'augment', 'optim', 'sharding', 'state'},
  'tools': None,  # Nothing is above it.
  'train': _RUN | {'evaluate', 'step'},
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


def room(path):
  """Returns the package or module right below pinpp_jax that a file is in."""
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def test_every_room_has_its_arrows():
  assert {room(path) for path in SOURCES} - {'__init__'} == set(OURS)


@pytest.mark.parametrize(
  'path', SOURCES, ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_only_look_down(path):
  allowed = OURS.get(room(path), set())
  if allowed is None:
    return
  ours = set()
  for name in imports(path):
    if name.startswith('pinpp_jax.'):
      ours.add(name.split('.')[1])
  assert ours <= allowed | {room(path)}


def test_folders_are_small():
  files = subprocess.check_output(
    ['git', 'ls-files', 'pinpp_jax', 'benchmarks'], cwd=ROOT, text=True
  )
  folders = collections.Counter(
    pathlib.Path(name).parent for name in files.split()
  )
  assert max(folders.values()) <= 15, folders.most_common(3)


def test_packages_say_what_lives_there():
  for path in SOURCES:
    if path.name == '__init__.py':
      assert ast.get_docstring(ast.parse(path.read_text())), path


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
  package = PACKAGE / 'evals' / 'autoattack'
  paths = {*package.glob('*.py'), PACKAGE / 'machine' / 'processes.py'}
  for path in paths - {package / 'robustbench.py'}:
    found = list(imports(path))
    assert third_party(found) <= {'jax', 'numpy'}, path
    for name in found:
      if name.startswith('pinpp_jax.'):
        inner = name.removeprefix('pinpp_jax.')
        assert inner.startswith(
          ('attacks', 'errors', 'evals.autoattack', 'machine.processes')
        ), (path, name)
