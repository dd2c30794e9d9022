"""What drawings of all tasks share: the font, and a colour for each class. Needs no MindSpore."""

import colorsys
import importlib.util
from pathlib import Path

import numpy as np
from PIL import ImageFont

GOLDEN_RATIO = 0.618034  # of the colour circle between one class and the next: any few of them lie far apart
FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"  # of matplotlib


def load_font(height):
    """Load a font of a height in pixels: DejaVu Sans, which has most scripts; Pillow's own without matplotlib."""
    found = importlib.util.find_spec("matplotlib")
    if found is not None:
        return ImageFont.truetype(str(Path(found.origin).parent / FONT), height)
    try:
        return ImageFont.load_default(height)
    except TypeError:  # before Pillow 10.1 it has one height
        return ImageFont.load_default()


def shorten_name(name, length):
    """Give a class its first name, of ImageNet's several, cut to `length` characters."""
    name = name.split(",")[0].strip()
    return name if len(name) <= length else f"{name[: length - 3].rstrip()}..."


def escape(text):
    """Give a text that matplotlib draws as it is: between two dollar signs it would read mathematics."""
    return text.replace("$", r"\$")


def palette(count):
    """Choose distinct colours uint8 (count, 3); the colour of a class does not depend on `count`."""
    tones = ((0.85, 0.95), (0.55, 0.95), (0.9, 0.6))  # saturation and value, in turn
    colours = [colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, *tones[index % len(tones)]) for index in range(count)]
    return np.rint(255 * np.array(colours)).astype(np.uint8)


def to_colours(images, mean, std):
    """Turn a network's input (N, 3, H, W) back into images uint8 (N, H, W, 3); see `src.data.images.normalise`."""
    pixels = images.transpose(0, 2, 3, 1) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    return np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
