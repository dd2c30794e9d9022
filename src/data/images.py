"""Finding, decoding and normalising image files, for every task."""

import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from src.errors import UserError, quote
from src.files import refuse_other_than_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
# of RGB in [0, 1] over ImageNet, with which published weights were trained
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_ASPECT = 1000
UNSIGNED_16_BITS = re.compile(r"I;16[BL]?\b")  # Pillow's names of how pixels are stored
UNSCALED = {"I": "32-bit or signed whole numbers (mode I)", "F": "32-bit floating point (mode F)"}

warnings.filterwarnings("ignore", module="PIL")  # on the metadata of images, and on large ones


def scan_folder(path) -> tuple:
    """List the entries of a folder itself; hidden ones do not count at all.

    Returns:
        (names of the images, names of the folders, number of other entries).
    """
    images, folders, others = [], [], 0
    for entry in os.scandir(path):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        elif _is_image(entry):
            images.append(entry.name)
        else:
            others += 1
    return images, folders, others


def find_images(folder: Path, scan=scan_folder):
    """Find the image files below a folder, by their endings; hidden files and folders do not count at all.

    Args:
        folder: where to begin.
        scan: `scan_folder`, or what gives the same, see `list_cache`.

    Returns:
        Their paths, sorted, and the number of other entries: files with other endings, pipes, links to nothing or to
        folders.

    Raises:
        UserError: if there are no images, or a folder cannot be read.
    """
    found, others, todo = [], 0, [os.fspath(folder)]
    try:
        while todo:
            path = todo.pop()
            images, folders, more = scan(path)
            parent = Path(path)
            found += [parent / name for name in sorted(images)]  # paths are compared more slowly than texts
            todo += [os.path.join(path, name) for name in folders]
            others += more
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None
    if not found:
        raise UserError(f"{folder}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(found), others


def _is_image(entry) -> bool:
    """Tell whether an entry of a folder is a file, or a link to one, with an image's ending."""
    if not entry.name.lower().endswith(IMAGE_SUFFIXES):
        return False
    return entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)  # the first asks the disk for nothing


def describe_others(folder, count: int) -> tuple:
    """Put in words that `count` files of a folder were left out: a tuple of one line, or of none."""
    if count == 0:
        return ()
    return (
        f"{quote(folder)}: {count} other files are left out; the endings of images are {', '.join(IMAGE_SUFFIXES)}",
    )


def list_images(names):
    """List the images that the names of files and folders stand for.

    Returns:
        Their paths, and lines about what is left out.

    Raises:
        UserError: if one is not there, or a folder holds no images.
    """
    paths, notes = [], []
    for path in map(Path, names):
        if path.is_dir():
            found, others = find_images(path)
            notes += describe_others(path, others)
        elif path.exists():
            found = [path]
        else:
            raise UserError(f"{path}: no such file or folder")
        paths += found
    return paths, notes


def load_image(path, mode="RGB", exif_rotation=False) -> Image.Image:
    """Decode an image file.

    Args:
        path: of a file of any format that Pillow reads, whatever its ending.
        mode: Pillow's name of the mode to convert to; None leaves it as it is stored.
        exif_rotation: whether to turn a photograph as its EXIF orientation says.

    Raises:
        UserError: naming the file, if it is missing or broken, or its numbers have no range of colours.
    """
    refuse_other_than_file(path, "an image is")
    try:
        with Image.open(path) as image:
            stored = str(image.tile[0][3]) if image.tile else ""
            image.load()
            if exif_rotation:
                image = _turn_upright(image)
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a whole image: unknown format") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        if getattr(error, "filename", None):  # the system's errors have one
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: is not a whole image: {reason}") from None
    if max(image.size) > MAX_ASPECT * min(image.size):  # resized by its shorter side it could be of any size
        width, height = image.size
        raise UserError(f"{path}: is {width}x{height}, the sides of an image may differ by a factor of {MAX_ASPECT}")
    if mode in (None, image.mode):
        return image
    # older versions of Pillow have no mode of 16 bits for PNG
    if image.mode.startswith("I;16") or (image.mode == "I" and UNSIGNED_16_BITS.search(stored)):
        white = 2**12 - 1 if "I;12" in stored else 2**16 - 1
        image = Image.fromarray(np.rint(np.asarray(image) * (255 / white)).astype(np.uint8))
    if image.mode in UNSCALED:
        raise UserError(f"{path}: is stored as {UNSCALED[image.mode]}, without a range; 8 and 16 bits are allowed")
    return image.convert(mode)


def _turn_upright(image):
    """Turn an image as its EXIF orientation says; data that cannot be read say nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises almost anything on broken files
        return image


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
