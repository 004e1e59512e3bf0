"""Command-line tools: `pinpp <name>` is `python -m pinpp_jax.tools.<name>`."""

from collections.abc import Sequence
import importlib
import sys

# name -> what it is for. Each is a module here with `main(arguments) -> int`.
TOOLS = {
  'build': 'build the data set pinpp or pinpp_mini (no TensorFlow needed)',
  'check': 'check a release folder with every guard, and list what it finds',
  'compare': 'compare two robustness evaluations image by image',
  'concepts': 'score heat maps against the masks of class-free part names',
  'doctor': 'say what is installed and found, what is missing, what to type',
  'export': 'write a data set as COCO, Parquet, WebDataset and the like',
  'labels': 'show, search and export the label table',
  'overview': 'write one page over several runs',
  'parity': 'compare with numbers recorded from the PyTorch reference',
  'stats': 'count classes, parts and masks, as tables and drawings',
  'view': 'show images and their parts as a local web page, or publish it',
}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs a tool by name and returns its exit status."""
  words = list(sys.argv[1:] if arguments is None else arguments)
  if not words or words[0] in ('-h', '--help'):
    print('usage: pinpp <tool> [options]   (pinpp <tool> --help)\n')
    for name, purpose in TOOLS.items():
      print(f'  {name:8} {purpose}')
    return 0 if words else 2
  name = words[0]
  if name not in TOOLS:
    print(
      f'pinpp: no tool {name!r}; there are {", ".join(TOOLS)}', file=sys.stderr
    )
    return 2
  return importlib.import_module(f'pinpp_jax.tools.{name}').main(words[1:])
