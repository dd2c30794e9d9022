"""Photometric distortion of training images, for detection and segmentation.

Source: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, section 3.6, after Howard, arXiv:1312.5402.
Difference from the usual OpenCV code: hue and saturation are not rounded to 8 bits in between.
"""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from src.fields import bounded, check_rising

WHITE = 255.0


@dataclass(frozen=True)
class PhotometricOptions:
    """How far colours are distorted.

    Attributes:
        brightness: largest shift in grey levels.
        contrast, saturation: ranges (low, high) of the factor.
        hue: largest rotation in degrees.
        swap_channels: whether red, green and blue change places in half of the images.
    """

    brightness: float = bounded(32.0, 0.0, 255.0)
    contrast: Tuple[float, float] = bounded((0.5, 1.5), 0.0, 10.0)
    saturation: Tuple[float, float] = bounded((0.5, 1.5), 0.0, 10.0)
    hue: float = bounded(18.0, 0.0, 180.0)
    swap_channels: bool = False

    def __post_init__(self):
        check_rising(self, "contrast", "saturation")


def distort(image, generator, options):
    """Shift brightness, scale contrast and saturation, rotate the hue, each with probability 1/2.

    Contrast changes before or after saturation and hue, with equal probability. Channels are swapped last.

    Args:
        image: RGB, uint8 (H, W, 3); stays as it is.
        generator: numpy Generator.
        options: `PhotometricOptions`.

    Returns:
        uint8 (H, W, 3).
    """
    pixels = image.astype(np.float32)
    contrast_last = generator.random() < 0.5
    if generator.random() < 0.5:
        pixels = shift_brightness(pixels, generator.uniform(-options.brightness, options.brightness))
    factor = generator.uniform(*options.contrast) if generator.random() < 0.5 else None
    if factor is not None and not contrast_last:
        pixels = scale_contrast(pixels, factor)
    if generator.random() < 0.5:
        pixels = scale_saturation(pixels, generator.uniform(*options.saturation))
    if generator.random() < 0.5:
        pixels = rotate_hue(pixels, generator.uniform(-options.hue, options.hue))
    if factor is not None and contrast_last:
        pixels = scale_contrast(pixels, factor)
    if options.swap_channels and generator.random() < 0.5:
        pixels = pixels[..., generator.permutation(3)]
    return np.rint(pixels).astype(np.uint8)


def shift_brightness(pixels, levels):
    """Add grey levels to float32 RGB (H, W, 3) in [0, 255]."""
    return np.clip(pixels + np.float32(levels), 0, WHITE)


def scale_contrast(pixels, factor):
    """Multiply float32 RGB (H, W, 3) in [0, 255]."""
    return np.clip(pixels * np.float32(factor), 0, WHITE)


def scale_saturation(pixels, factor):
    """Multiply the saturation of HSV in float32 RGB (H, W, 3) in [0, 255], at the same hue and value."""
    value = pixels.max(2, keepdims=True)
    chroma = value - pixels.min(2, keepdims=True)
    # saturation is chroma / value, at most 1
    limit = np.divide(value, chroma, out=np.ones_like(value), where=chroma > 0)
    return value - (value - pixels) * np.minimum(np.float32(factor), limit)


def rotate_hue(pixels, degrees):
    """Rotate the hue of HSV in float32 RGB (H, W, 3) in [0, 255], at the same saturation and value."""
    red, green, blue = np.moveaxis(pixels, 2, 0)  # (H, W, 3) -> (3, H, W)
    value = pixels.max(2)
    chroma = value - pixels.min(2)
    divisor = np.where(chroma > 0, chroma, 1)
    # the hue in sextants: 0 red, 2 green, 4 blue
    hue = np.where(value == red, (green - blue) / divisor, (red - green) / divisor + 4)
    hue = np.where((value == green) & (value != red), (blue - red) / divisor + 2, hue)
    hue = hue + np.float32(degrees / 60)
    channels = []
    for offset in (5, 3, 1):  # each channel falls to the minimum over two sextants and rises again
        position = (hue + offset) % 6
        channels.append(value - chroma * np.clip(np.minimum(position, 4 - position), 0, 1))
    return np.stack(channels, axis=2)
