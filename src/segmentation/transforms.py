"""Augmentation of images together with their masks: numpy arrays and a numpy Generator in, arrays out.

The steps are those of the published DeepLabV3 recipes for ADE20K: resize by a random ratio, crop, flip, photometric
distortion, pad. Known difference: Pillow's bilinear resize, which averages where it reduces.
"""

import numpy as np
from PIL import Image

from src.data.photometric import PhotometricOptions, distort

IGNORED = 255  # label of pixels that do not count
CROP_ATTEMPTS = 10
COLOURS = PhotometricOptions(hue=36.0)  # MMSegmentation's 18 are units of OpenCV's 8-bit hue, of two degrees each


class SegmentationAugmentation:
    """(image uint8 (H, W, 3), labels uint8 (H, W), Generator) -> the same of a fixed size.

    Args:
        crop_size: (height, width) of the result.
        base_size: (long, short) side that the image must fit into at ratio 1.
        fill: RGB of the pixels behind the image's right and bottom edge, where it is smaller than the crop.
        settings: `AugmentSettings` of segmentation.
    """

    def __init__(self, crop_size, base_size, fill, settings):
        self.crop_size, self.base_size, self.fill, self.settings = crop_size, base_size, fill, settings

    def __call__(self, image, labels, generator):
        ratio = generator.uniform(*self.settings.ratio)
        size = fit_size(labels.shape, *(side * ratio for side in self.base_size))
        image, labels = resize_image(image, size), resize_labels(labels, size)
        top, left = draw_crop(labels, self.crop_size, self.settings.largest_share, generator)
        rows, columns = slice(top, top + self.crop_size[0]), slice(left, left + self.crop_size[1])
        image, labels = image[rows, columns], labels[rows, columns]
        if generator.random() < self.settings.flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.settings.photometric:
            image = distort(image, generator, COLOURS)
        return pad(image, labels, self.crop_size, self.fill)


def fit_size(size, long, short):
    """Find the largest (height, width) of the aspect of `size` that fits into a `long` and a `short` side."""
    scale = min(long / max(size), short / min(size))
    return tuple(max(1, round(side * scale)) for side in size)


def resize_image(image, size):
    """Resize uint8 (H, W, 3) bilinearly to (height, width)."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_labels(labels, size):
    """Resize uint8 (H, W) to (height, width): each pixel takes the label at its centre."""
    return np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def draw_crop(labels, crop_size, largest_share, generator):
    """Draw (top, left) of a crop in which no class has more than a share of the labelled pixels.

    The last of `CROP_ATTEMPTS` draws counts in any case. A side that is shorter than the crop's begins at 0.
    """
    rooms = [max(0, side - wanted) for side, wanted in zip(labels.shape, crop_size)]
    for _ in range(CROP_ATTEMPTS):
        top, left = (int(generator.integers(0, room + 1)) for room in rooms)
        crop = labels[top : top + crop_size[0], left : left + crop_size[1]]
        counts = np.bincount(crop.ravel(), minlength=IGNORED + 1)[:IGNORED]
        if largest_share >= 1 or 0 < counts.max() <= largest_share * counts.sum():
            break
    return top, left


def pad(image, labels, size, fill):
    """Extend at the right and bottom to (height, width): the image with a colour, the labels with `IGNORED`."""
    height, width = labels.shape
    padded_image = np.empty((*size, 3), np.uint8)
    padded_image[:] = fill
    padded_image[:height, :width] = image
    padded_labels = np.full(size, IGNORED, np.uint8)
    padded_labels[:height, :width] = labels
    return padded_image, padded_labels
