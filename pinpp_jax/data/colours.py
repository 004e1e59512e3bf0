"""The colours of parts, the same on every page."""

import colorsys

# Told apart by most eyes, on photographs as well.
COLOURS = (
  '#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee',
  '#aa3377', '#ee7733', '#117766', '#882255', '#999933',
)  # fmt: skip


def colour(local_index: int) -> str:
  """Returns the colour of a class's part 1, 2, ..., in every picture."""
  if local_index <= len(COLOURS):
    return COLOURS[local_index - 1]
  hue = local_index * 0.618034 % 1  # Far from its neighbours' hues.
  rgb = colorsys.hsv_to_rgb(hue, 0.65, 0.85)
  return '#' + ''.join(f'{round(255 * x):02x}' for x in rgb)
