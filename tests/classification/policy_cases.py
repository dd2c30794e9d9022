"""What the tests of policies share: images, a colour to fill with, numbers instead of draws."""

import numpy as np
from PIL import Image

GREY = (124, 116, 104)  # ImageNet's mean colour
DEVIATIONS = 4.5  # allowed, in standard errors; all draws are seeded


class Draws:
    """In place of both a numpy Generator and Python's `random`: every number drawn is the same.

    Args:
        number: in [0, 1).
        choice: index in a pair of resampling filters.
        pair: index in a longer list.
    """

    def __init__(self, number, choice=0, pair=0):
        self.number, self.which, self.pair = number, choice, pair

    def random(self):
        return self.number

    def choice(self, options):
        return options[self.which if len(options) == 2 else self.pair]

    def integers(self, count):
        return self.pair


def images():
    """A smooth, colourful one that is not square, noise, and one of a single colour."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    yield small.resize((61, 48), Image.Resampling.BICUBIC)
    yield Image.fromarray(rng.integers(20, 230, (40, 40, 3), np.uint8))
    yield Image.new("RGB", (33, 34), (7, 130, 250))


def old_posterize(image, bits):
    """Pillow's before 13, which took any number of bits."""
    return image.point(lambda level: level & ~(2 ** (8 - bits) - 1))
