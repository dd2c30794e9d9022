"""The operations of augmentation policies on PIL images in RGB, with timm's ranges of their strength.

AutoContrast, Equalize, Invert, Color, Contrast and Brightness are MindSpore's: on a PIL image they give Pillow's
pixels at Pillow's speed. The others are Pillow's own: MindSpore's sharpness rounds otherwise, its rotation and
shear sample another grid, its Posterize keeps at least one bit, its Solarize has no threshold above 255; the last
two also answer with an array.
"""

import math
from typing import Callable, NamedTuple, Optional

from mindspore.dataset import vision
from PIL import Image, ImageEnhance, ImageOps

from src.classification.transforms import draw_resampling

MAX_LEVEL = 10.0  # magnitude at which an operation's range ends


def transform(image, matrix, resampling, fill):
    """Transform an image so that its pixel (x, y) is the old (a x + b y + c, d x + e y + f); `matrix` is a to f."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resampling, fillcolor=fill)


def shear_x(image, factor, resampling, fill):
    return transform(image, (1, factor, 0, 0, 1, 0), resampling, fill)


def shear_y(image, factor, resampling, fill):
    return transform(image, (1, 0, 0, factor, 1, 0), resampling, fill)


def translate_x(image, share, resampling, fill):
    return transform(image, (1, 0, share * image.width, 0, 1, 0), resampling, fill)


def translate_y(image, share, resampling, fill):
    return transform(image, (1, 0, 0, 0, 1, share * image.height), resampling, fill)


def rotate(image, degrees, resampling, fill):
    return image.rotate(degrees, resample=resampling, fillcolor=fill)


def posterize(image, bits):
    """Keep the upper `bits` of each level; 0 and less give black, as in Pillow before 13, which refuses them."""
    mask = 255 & 255 << max(0, 8 - max(0, bits))
    return image.point([level & mask for level in range(256)] * 3)


def solarize_add(image, amount):
    """Add `amount` to the levels of the darker half."""
    return image.point([min(255, level + amount) if level < 128 else level for level in range(256)] * 3)


def auto_contrast(image):
    return vision.AutoContrast()(image)


def equalize(image):
    return vision.Equalize()(image)


def invert(image):
    return vision.Invert()(image)


def color(image, factor):
    return vision.AdjustSaturation(factor)(image)


def contrast(image, factor):
    return vision.AdjustContrast(factor)(image)


def brightness(image, factor):
    return vision.AdjustBrightness(factor)(image)


def sharpness(image, factor):
    return ImageEnhance.Sharpness(image).enhance(factor)


class Operation(NamedTuple):
    """An operation and how a level, the share of its range, becomes its argument.

    `argument` takes (level, sign), with sign 1 or -1 at random; None: there is no argument. `apply` takes (image,
    argument), if `is_geometric` also (resampling, fill).
    """

    apply: Callable
    argument: Optional[Callable] = None
    is_geometric: bool = False


def apply_operation(operation, image, level, generator, fill, interpolation):
    """Apply an `Operation` of a given level; its sign and resampling are drawn.

    Args:
        operation: `Operation`.
        image: PIL image in RGB.
        level: share of the operation's range, 1 for its end.
        generator: numpy Generator.
        fill: 8-bit colour of what a rotation, shear or translation uncovers.
        interpolation: of these, 'bilinear', 'bicubic', or 'random': either, drawn.

    Returns:
        PIL image of the same size.
    """
    if operation.argument is None:
        return operation.apply(image)
    argument = operation.argument(level, 1 if generator.random() < 0.5 else -1)
    if not operation.is_geometric:
        return operation.apply(image, argument)
    return operation.apply(image, argument, draw_resampling(interpolation, generator), fill)


def draw_magnitude(magnitude, std, high, generator) -> float:
    """Draw a magnitude within [0, high]: normal around `magnitude`, or uniform below it if `std` is infinite."""
    if math.isinf(std):
        magnitude = generator.uniform(0, magnitude)
    elif std > 0:
        magnitude = generator.normal(magnitude, std)
    return max(0.0, min(magnitude, high))


def _enhance(level, _):
    return level * 1.8 + 0.1


def _enhance_more(level, sign):
    """Move away from 1, which changes nothing."""
    return max(0.1, 1.0 + sign * (level * 0.9))


def _posterize_bits(level, _):
    return int(level * 4)


def _solarize_threshold(level, _):
    return min(256, int(level * 256))


# timm's; a larger magnitude of those called Increasing is a stronger effect
OPERATIONS = {
    "AutoContrast": Operation(auto_contrast),
    "Equalize": Operation(equalize),
    "Invert": Operation(invert),
    "Rotate": Operation(rotate, lambda s, sign: sign * (s * 30), is_geometric=True),  # degrees
    "Posterize": Operation(posterize, _posterize_bits),
    "PosterizeIncreasing": Operation(posterize, lambda s, _: 4 - _posterize_bits(s, _)),
    "PosterizeOriginal": Operation(posterize, lambda s, _: 4 + _posterize_bits(s, _)),
    "Solarize": Operation(ImageOps.solarize, _solarize_threshold),
    "SolarizeIncreasing": Operation(ImageOps.solarize, lambda s, _: 256 - _solarize_threshold(s, _)),
    "SolarizeAdd": Operation(solarize_add, lambda s, _: min(128, int(s * 110))),
    "Color": Operation(color, _enhance),
    "ColorIncreasing": Operation(color, _enhance_more),
    "Contrast": Operation(contrast, _enhance),
    "ContrastIncreasing": Operation(contrast, _enhance_more),
    "Brightness": Operation(brightness, _enhance),
    "BrightnessIncreasing": Operation(brightness, _enhance_more),
    "Sharpness": Operation(sharpness, _enhance),
    "SharpnessIncreasing": Operation(sharpness, _enhance_more),
    "ShearX": Operation(shear_x, lambda s, sign: sign * (s * 0.3), is_geometric=True),
    "ShearY": Operation(shear_y, lambda s, sign: sign * (s * 0.3), is_geometric=True),
    # shares of the width and height
    "TranslateX": Operation(translate_x, lambda s, sign: sign * (s * 0.45), is_geometric=True),
    "TranslateY": Operation(translate_y, lambda s, sign: sign * (s * 0.45), is_geometric=True),
}
