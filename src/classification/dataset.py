"""Image folders: `SPLIT/CLASS/*.jpg` as lists of files and labels, and the loading of one image.

Images are decoded by Pillow, whose transforms give timm's and torchvision's pixels. All randomness of a sample
comes from (seed, epoch, index), so it depends neither on the number of workers nor on where a run was resumed.
"""

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np

from src.data.images import find_images, load_image
from src.data.list_cache import open_list_cache
from src.errors import UserError, quote, suggestion

MAX_BROKEN_IN_A_ROW = 50
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation", "test")}


def find_split(root, split: str) -> Path:
    """Find the folder of a split: ROOT/train or ROOT/val; for evaluation also ROOT itself, if it has no such folders.

    Raises:
        UserError: if there is none.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --data_url or data.path names it")
    for name in SPLIT_FOLDERS[split]:
        if (root / name).is_dir():
            return root / name
    if split == "train" or any((root / name).is_dir() for names in SPLIT_FOLDERS.values() for name in names):
        raise UserError(f"{root}: has no folder {SPLIT_FOLDERS[split][0]!r}")
    return root


def list_class_folders(folder: Path, class_names, list_cache=None):
    """List the images of a folder of class folders, in sorted order.

    Args:
        folder: holds one folder a class.
        class_names: names in index order; empty for the sorted folder names. The folder may lack some of them.
        list_cache: see `open_list_cache`.

    Returns:
        (class names, image paths, labels int32, number of other files).

    Raises:
        UserError: for a folder that is no class, or a class without images.
    """
    folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise UserError(f"{folder}: holds no class folders; data.val_labels can name a list of labels instead")
    indices = {name: index for index, name in enumerate(class_names or folders)}
    paths, labels, others = [], [], 0
    with open_list_cache(list_cache, folder) as scan:
        for name in folders:
            if name not in indices:
                advice = suggestion(name, indices) or "; data.class_index and data.class_names say what the classes are"
                raise UserError(f"{folder / name}: is no class of this network{advice}")
            found, more = find_images(folder / name, scan)
            paths += found
            labels += [indices[name]] * len(found)
            others += more
    return tuple(indices), paths, np.array(labels, np.int32), others


class SkipBroken:
    """Reads an image, or if it is broken the next one: (index, label) -> (PIL image, its label).

    Each broken file is named once on standard error, whichever thread or process meets it.

    Args:
        paths, labels: of all images; behind the last comes the first.
        exif_rotation: see `load_image`.

    Raises:
        UserError: when called, after `MAX_BROKEN_IN_A_ROW` broken images, or if all are broken.
    """

    def __init__(self, paths, labels, exif_rotation):
        self.paths, self.labels, self.exif_rotation = [os.fspath(path) for path in paths], labels, exif_rotation
        self.named = multiprocessing.Array("b", len(paths))

    def __call__(self, index, label):
        attempts = min(MAX_BROKEN_IN_A_ROW, len(self.paths))
        for _ in range(attempts):
            try:
                return load_image(self.paths[index], exif_rotation=self.exif_rotation), label
            except UserError as error:
                substitute = (index + 1) % len(self.paths)
                self._warn(index, f"warning: {error}; {quote(self.paths[substitute])} takes its place")
                index, label = substitute, self.labels[substitute]
        last = self.paths[index - 1]
        raise UserError(f"{last}: is the last of {attempts} images in a row that are not whole")

    def _warn(self, index, message):
        with self.named.get_lock():
            if not self.named[index]:
                self.named[index] = True
                print(message, file=sys.stderr, flush=True)


class LoadImage:
    """(key (epoch, index), label) -> (uint8 (size, size, 3), label, key).

    Args:
        paths: of all images.
        transform: (PIL image, numpy Generator) -> PIL image or array, of fixed size.
        seed: of the run.
        skip_broken: `SkipBroken`; None: a broken image is an error.
        exif_rotation: see `load_image`.
    """

    def __init__(self, paths, transform, seed, skip_broken, exif_rotation):
        self.paths = [os.fspath(path) for path in paths]
        self.transform, self.seed, self.skip_broken = transform, seed, skip_broken
        self.exif_rotation = exif_rotation

    def source(self, key, label):
        """Name the file of a sample."""
        return self.paths[int(key[1])]

    def __call__(self, key, label):
        epoch, index = (int(number) for number in key)
        # NumPy fills short keys up with zeros: image 0 shares its stream with the shuffle, to no visible effect
        generator = np.random.default_rng((self.seed, epoch, index))
        if self.skip_broken is None:
            image = load_image(self.paths[index], exif_rotation=self.exif_rotation)
        else:
            image, label = self.skip_broken(index, label)
        return np.asarray(self.transform(image, generator)), label, key
