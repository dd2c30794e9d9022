"""Images and masks in ADE20K's layout: lists of files, and the loading of a pair.

`images/{training,validation}/NAME.jpg` and `annotations/{training,validation}/NAME.png`, one channel: 0 is "other",
which does not count, 1 to C are the classes. Loaded, these are `IGNORED` and 0 to C - 1.

All randomness of a sample comes from (seed, epoch, index), as in classification.
"""

import os
from pathlib import Path

import numpy as np

from src.data.images import find_images, load_image
from src.errors import UserError
from src.segmentation.transforms import IGNORED

SPLIT_FOLDERS = {"train": "training", "val": "validation"}


def pair_files(root, split):
    """Find the images of a split and their masks, in sorted order.

    Args:
        root: holds `images` and `annotations`.
        split: 'train' or 'val'.

    Returns:
        [(image path, mask path), ...], and the number of other files beside the images.

    Raises:
        UserError: if a folder is missing or empty, or an image has no mask.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --data_url or data.path names it")
    images, masks = (root / kind / SPLIT_FOLDERS[split] for kind in ("images", "annotations"))
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder; the layout is images/ and annotations/, each with training/ and validation/"
            )
    found, others = find_images(images)
    pairs = [(path, (masks / path.relative_to(images)).with_suffix(".png")) for path in found]
    missing = [(path, mask) for path, mask in pairs if not mask.is_file()]
    if missing:
        path, mask = missing[0]
        more = f" and {len(missing) - 1} more have" if len(missing) > 1 else " has"
        raise UserError(f"{path}{more} no mask, expected {mask}")
    return pairs, others


def load_labels(path, num_classes, exif_rotation):
    """Load the labels uint8 (H, W) of a mask file: classes from 0, and `IGNORED`.

    Raises:
        UserError: if it is broken, has several channels, or a value that is no class.
    """
    stored = np.asarray(load_image(path, None, exif_rotation))  # of a palette image the indices
    if stored.dtype.kind == "f":
        raise UserError(f"{path}: is stored as floating point, a mask holds whole numbers")
    stored = stored.astype(np.int32)
    if stored.ndim != 2:
        raise UserError(f"{path}: has {stored.shape[2]} channels, a mask has one")
    low, high = int(stored.min()), int(stored.max())
    if low < 0 or high > num_classes:
        wrong = low if low < 0 else high
        raise UserError(f"{path}: has the value {wrong}, allowed are 0 (other) to {num_classes} (classes)")
    return np.where(stored == 0, IGNORED, stored - 1).astype(np.uint8)


def load_pair(image_path, mask_path, num_classes, exif_rotation):
    """Load an image and its mask, each turned as its own EXIF orientation says if `exif_rotation` is set.

    Returns:
        (uint8 (H, W, 3), labels uint8 (H, W)).

    Raises:
        UserError: if either is broken, the mask is none, or their sizes differ.
    """
    image = np.asarray(load_image(image_path, exif_rotation=exif_rotation))
    labels = load_labels(mask_path, num_classes, exif_rotation)
    if image.shape[:2] != labels.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], labels.shape
        raise UserError(f"{mask_path}: is of {mask_width}x{mask_height} pixels, its image of {width}x{height}")
    return image, labels


class LoadPair:
    """(key (epoch, index), index) -> (uint8 (H, W, 3), labels uint8 (H, W), key).

    Args:
        pairs: from `pair_files`.
        num_classes: see `load_labels`.
        transform: (image, labels, numpy Generator) -> (image, labels); None leaves them as they are.
        seed: of the run.
        exif_rotation: see `load_image`.
    """

    def __init__(self, pairs, num_classes, transform, seed, exif_rotation):
        self.pairs = [(os.fspath(image), os.fspath(mask)) for image, mask in pairs]
        self.num_classes, self.transform, self.seed = num_classes, transform, seed
        self.exif_rotation = exif_rotation

    def source(self, key, index):
        """Name the file of a sample."""
        return self.pairs[int(index)][0]

    def __call__(self, key, index):
        image, labels = load_pair(*self.pairs[int(index)], self.num_classes, self.exif_rotation)
        if self.transform is not None:
            generator = np.random.default_rng((self.seed, *(int(number) for number in key)))
            image, labels = self.transform(image, labels, generator)
        return image, labels, key
