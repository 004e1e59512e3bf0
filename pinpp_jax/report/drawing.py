"""The style of all drawings, and their embedding in a page."""

import base64
import io
from typing import Any

from matplotlib.figure import Figure

COLOURS = ('#2f6fb0', '#d9603b', '#2d8a57', '#8a5aa8', '#b8860b', '#5b6770')
STYLE: dict[Any, Any] = {
  'font.size': 9,
  'font.family': 'sans-serif',
  'axes.edgecolor': '#9aa3ad',
  'axes.labelcolor': '#47515c',
  'axes.grid': True,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'grid.color': '#e6e9ed',
  'xtick.color': '#47515c',
  'ytick.color': '#47515c',
  'svg.hashsalt': 'pinpp_jax',  # The same numbers give the same file.
}


def svg(figure: Figure) -> str:
  """Returns a drawing as a data URI; call it within `rc_context(STYLE)`."""
  buffer = io.BytesIO()
  figure.savefig(
    buffer, format='svg', transparent=True, metadata={'Date': None}
  )
  encoded = base64.b64encode(buffer.getvalue()).decode()
  return f'data:image/svg+xml;base64,{encoded}'
