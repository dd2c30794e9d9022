"""What drawings of all tasks share: the font, a colour for each class, and the names of files."""

import colorsys
from pathlib import Path

import matplotlib
import numpy as np

GOLDEN_RATIO = 0.618034  # of the colour circle between one class and the next: any few of them lie far apart
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def palette(count):
    """Distinct colours uint8 (count, 3); the colour of a class does not depend on `count`."""
    tones = ((0.85, 0.95), (0.55, 0.95), (0.9, 0.6))  # saturation and value, in turn
    colours = [colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, *tones[index % len(tones)]) for index in range(count)]
    return np.rint(255 * np.array(colours)).astype(np.uint8)


def choose_name(folder, stem, taken):
    """`folder/stem.png`, or with a number behind the stem where pictures of one run share it; notes it in `taken`."""
    path, number = folder / f"{stem}.png", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}_{number}.png"
    taken.add(path)
    return path
