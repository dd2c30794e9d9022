"""What drawings of all tasks share: the font, a colour for each class, and the folder that they are saved in."""

import colorsys
from pathlib import Path

import matplotlib
import numpy as np

from src.errors import quote
from src.files import atomic_path

GOLDEN_RATIO = 0.618034  # of the colour circle between one class and the next: any few of them lie far apart
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def palette(count):
    """Choose distinct colours uint8 (count, 3); the colour of a class does not depend on `count`."""
    tones = ((0.85, 0.95), (0.55, 0.95), (0.9, 0.6))  # saturation and value, in turn
    colours = [colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, *tones[index % len(tones)]) for index in range(count)]
    return np.rint(255 * np.array(colours)).astype(np.uint8)


class DrawingFolder:
    """The folder of the drawings of one call of `predict`: each image of that call gets a name of its own.

    Args:
        path: of the folder; None where nothing is drawn.
    """

    def __init__(self, path):
        self.path, self.taken = path, set()

    def save(self, drawing, source) -> str:
        """Save a PIL image under the name of the image file `source`, as PNG; a line that says where."""
        stem = Path(source).stem
        path, number = Path(self.path) / f"{stem}.png", 1
        while path in self.taken:
            number += 1
            path = Path(self.path) / f"{stem}_{number}.png"
        self.taken.add(path)
        with atomic_path(path) as temporary:
            drawing.save(temporary)
        return f"  drawn: {quote(path)}"
