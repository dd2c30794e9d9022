"""Finding and decoding picture files, for every task."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from src.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
# of RGB in [0, 1] over ImageNet, with which published weights were trained
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def is_image(path: Path) -> bool:
    """Whether the file's ending is that of a picture; hidden files are not pictures."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def find_images(path: Path) -> list:
    """The file `path` itself, or all pictures below the folder `path`, sorted.

    Raises:
        UserError: if there are none.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        return [path]
    found = sorted(file for file in path.rglob("*") if is_image(file))
    if not found:
        raise UserError(f"{path}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return found


def load_image(path, mode="RGB") -> Image.Image:
    """Decode a picture of any format and mode to the mode wanted; None: as it is stored.

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
    """A network's input from pictures: uint8 (N, H, W, 3) -> float32 (N, 3, H, W), by mean and std for [0, 1].

    `out` is the array for it; None: a new one.
    """
    count, height, width, channels = pixels.shape
    result = np.empty((count, channels, height, width), np.float32) if out is None else out
    scale = [np.float32(1 / (255 * value)) for value in std]
    shift = [np.float32(-centre / value) for centre, value in zip(mean, std)]
    for picture, planes in zip(pixels, result):  # plane by plane, which stay in the processor's cache
        for channel, plane in enumerate(planes):
            np.multiply(picture[..., channel], scale[channel], out=plane)
            plane += shift[channel]
    return result
