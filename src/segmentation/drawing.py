"""Predicted classes as a colour overlay with a legend."""

import colorsys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

OPACITY = 0.55  # of the colours over the picture
GOLDEN_RATIO = 0.618034  # of the colour circle between one class and the next: any few of them lie far apart
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
FONT_SIZE, LINE_HEIGHT, MARGIN = 14, 20, 8  # pixels of the legend


def palette(count):
    """Distinct colours uint8 (count, 3); the colour of a class does not depend on `count`."""
    tones = ((0.85, 0.95), (0.55, 0.95), (0.9, 0.6))  # saturation and value, in turn
    colours = [colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, *tones[index % len(tones)]) for index in range(count)]
    return np.rint(255 * np.array(colours)).astype(np.uint8)


def draw_overlay(image, classes, shown, names):
    """The picture with its classes in colour, and beside it a legend.

    Args:
        image: uint8 (H, W, 3).
        classes: uint8 (H, W).
        shown: classes of the legend, in its order.
        names: of all classes.

    Returns:
        PIL image, at least as large as the picture.
    """
    colours = palette(len(names))
    mixed = Image.blend(Image.fromarray(image), Image.fromarray(colours[classes]), OPACITY)
    font = ImageFont.truetype(str(FONT), FONT_SIZE)
    text_left = MARGIN + LINE_HEIGHT
    legend_width = text_left + max(int(font.getlength(names[index])) for index in shown) + 2 * MARGIN
    height = max(mixed.height, len(shown) * LINE_HEIGHT + MARGIN)
    canvas = Image.new("RGB", (mixed.width + legend_width, height), "white")
    canvas.paste(mixed, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for line, index in enumerate(shown):
        left, top = mixed.width + MARGIN, MARGIN // 2 + line * LINE_HEIGHT
        draw.rectangle((left, top + 3, left + 14, top + 17), fill=tuple(colours[index].tolist()), outline="black")
        draw.text((mixed.width + text_left + MARGIN // 2, top + 2), names[index], fill="black", font=font)
    return canvas
