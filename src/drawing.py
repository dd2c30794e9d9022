"""What drawings of all tasks share: fonts, what is drawn for class names, and a colour for each. Needs no MindSpore."""

import colorsys
import importlib.util
import sys
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import ImageFont

from src.errors import quote

GOLDEN_RATIO = 0.618034  # of the colour circle between one class and the next: any few of them lie far apart
FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"  # of matplotlib
PILLOWS = ""  # in place of a file's name: the font that Pillow has built in
# files of fonts with Chinese characters, most of them with Japanese and Korean too; Pillow looks for these names, with
# any ending, where the system has its fonts
LINUX = ("NotoSansCJK-Regular", "NotoSansCJK-VF", "NotoSansCJKsc-Regular", "SourceHanSansSC-Regular", "wqy-microhei")
LINUX += ("wqy-zenhei", "DroidSansFallbackFull", "DroidSansFallback", "uming", "unifont")
FALLBACKS = (*LINUX, "msyh", "simsun", "malgun", "PingFang", "STHeiti Light", "Arial Unicode")  # Windows, then macOS
NO_CHARACTER = "\uffff"  # Unicode keeps it free, so it is drawn as all are that a font lacks
CHECKED_HEIGHT = 32  # pixels, in which characters can be told apart
MOST_CHARACTERS = 2**16  # whose fonts are remembered


def draw_text(draw, place, text, height, fill):
    """Draw a text, each character in the first font that has it, all on one line.

    Args:
        draw: `ImageDraw`.
        place: (left, top) of the text.
        text, height: see `split_text`.
        fill: colour.
    """
    left, top = place
    for part, font, drop in split_text(text, height):
        draw.text((left, top + drop), part, fill=fill, font=font)
        left += draw.textbbox((0, 0), part, font)[2]


def text_size(draw, text, height):
    """Give (width, height) in pixels of what `draw_text` draws."""
    parts = split_text(text, height)
    boxes = [draw.textbbox((0, drop), part, font) for part, font, drop in parts]
    return sum(box[2] for box in boxes), max(box[3] for box in boxes)


def split_text(text, height) -> list:
    """Split a text by the fonts that draw it.

    The usual one is DejaVu Sans, which has most scripts, or Pillow's own without matplotlib.

    Args:
        text: is not empty; characters that no font has stay in the usual one.
        height: of the fonts in pixels.

    Returns:
        (part, font, pixels by which it lies lower than the usual one's) in the order of the text.
    """
    usual, parts = open_font(default_font(), height), []
    for file, characters in groupby(text, lambda character: find_font(character) or default_font()):
        font, drop = open_font(file, height), 0
        if font is not usual and isinstance(usual, ImageFont.FreeTypeFont):
            drop = usual.getmetrics()[0] - font.getmetrics()[0]
        parts.append(("".join(characters), font, drop))
    return parts


def default_font() -> str:
    """Give the file of the font that most texts are drawn with."""
    found = importlib.util.find_spec("matplotlib")
    return PILLOWS if found is None else str(Path(found.origin).parent / FONT)


@lru_cache(MOST_CHARACTERS)
def find_font(character):
    """Find the first font that has a character: its file, which may be `PILLOWS`; None if none has."""
    files = (default_font(), *FALLBACKS)
    return next((file for file in files if has_character(open_font(file, CHECKED_HEIGHT), character)), None)


@lru_cache
def open_font(file, height):
    """Open a font file, by its path or its name alone, or `PILLOWS`; None if there is none."""
    try:
        return ImageFont.load_default(height) if file == PILLOWS else ImageFont.truetype(file, height)
    except TypeError:  # before Pillow 10.1 its own font has one height
        return ImageFont.load_default()
    except OSError:
        return None


def has_character(font, character) -> bool:
    """Whether a font, or None, draws a character otherwise than one that it lacks; what does not print, each has."""
    if font is None or not character.isprintable() or character.isspace():
        return font is not None
    try:
        masks = [font.getmask(one) for one in (character, NO_CHARACTER)]
    except UnicodeEncodeError:  # the one of Pillow before 10.1 is of Latin alone
        return character.isascii()
    return masks[0].size != masks[1].size or bytes(masks[0]) != bytes(masks[1])


@lru_cache
def label_classes(names):
    """Give what is drawn for each class: its name, or its number, from 0, where a character is in no font.

    Args:
        names: of all classes, a tuple; a warning says once how many cannot be drawn.
    """
    drawn = [all(find_font(character) is not None for character in name) for name in names]
    lost = [name for name, is_drawn in zip(names, drawn) if not is_drawn]
    if lost:
        print(
            f"warning: no font on this machine has the characters of {len(lost)} class names, such as "
            f"{quote(lost[0])!r}: their numbers are drawn",
            file=sys.stderr,
        )
    return tuple(name if is_drawn else str(index) for index, (name, is_drawn) in enumerate(zip(names, drawn)))


def shorten_name(name, length):
    """Give a class its first name, of ImageNet's several, cut to `length` characters."""
    name = name.split(",")[0].strip()
    return name if len(name) <= length else f"{name[: length - 3].rstrip()}..."


def add_fonts(texts) -> None:
    """Have matplotlib draw what its usual font lacks with the fonts of `draw_text`, in figures made later."""
    from matplotlib import font_manager, rcParams

    files = {find_font(character) for character in set().union(*texts)} - {default_font(), PILLOWS, None}
    for file in sorted(files):
        path = open_font(file, CHECKED_HEIGHT).path
        font_manager.fontManager.addfont(path)
        name = font_manager.FontProperties(fname=path).get_name()
        if name not in rcParams["font.family"]:
            rcParams["font.family"] = [*rcParams["font.family"], name]


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
