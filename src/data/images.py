"""Finding, decoding and normalising image files, for every task."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from src.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
# of RGB in [0, 1] over ImageNet, with which published weights were trained
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def find_images(folder: Path):
    """Find the image files below a folder, by their endings; hidden files do not count at all.

    Returns:
        Their paths, sorted, and the number of other files.

    Raises:
        UserError: if there are no images.
    """
    found, others = [], 0
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        elif not path.is_dir():
            others += 1
    if not found:
        raise UserError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(found), others


def describe_others(folder, count: int) -> tuple:
    """Put in words that `count` files of a folder were left out: a tuple of one line, or of none."""
    if count == 0:
        return ()
    return (f"{folder}: {count} other files are left out; the endings of images are {', '.join(IMAGE_SUFFIXES)}",)


def load_image(path, mode="RGB") -> Image.Image:
    """Decode an image file.

    Args:
        path: of a file of any format that Pillow reads, whatever its ending.
        mode: Pillow's name of the mode to convert to; None leaves it as it is stored.

    Raises:
        UserError: naming the file, if it is missing or broken.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image if mode in (None, image.mode) else image.convert(mode)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a whole image: unknown format") from None
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: is not a whole image: {reason}") from None


def normalise(pixels, mean, std, out=None):
    """Turn images into a network's input.

    Args:
        pixels: uint8 (N, H, W, 3).
        mean, std: of each channel, for values in [0, 1].
        out: array for the result; None for a new one.

    Returns:
        float32 (N, 3, H, W).
    """
    count, height, width, channels = pixels.shape
    result = np.empty((count, channels, height, width), np.float32) if out is None else out
    scale = [np.float32(1 / (255 * value)) for value in std]
    shift = [np.float32(-centre / value) for centre, value in zip(mean, std)]
    for image, planes in zip(pixels, result):  # plane by plane, which stay in the processor's cache
        for channel, plane in enumerate(planes):
            np.multiply(image[..., channel], scale[channel], out=plane)
            plane += shift[channel]
    return result
