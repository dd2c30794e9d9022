"""Image folders as data pipelines: `SPLIT/CLASS/*.jpg` -> batches of normalised images and labels.

Decoding, resizing and cropping are Pillow's, as in timm and torchvision: MindSpore's own C++ resize is
another function and shifts a published accuracy; it can be chosen for evaluation. All randomness of a sample
comes from (seed, epoch, index), so it depends neither on the number of workers nor on where a run was resumed.
"""

import os
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import vision

from src.errors import UserError, nearest
from src.images import find_images, load_image

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation", "test")}


def find_split(root, split: str) -> Path:
    """Folder of a split: ROOT/train or ROOT/val; for evaluation also ROOT itself, if it has no such folders.

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


def list_samples(folder: Path, class_names=()):
    """Class names, image paths and labels of a folder of class folders, in sorted order.

    Args:
        folder: holds one folder a class.
        class_names: names in index order; empty: the sorted folder names. The folder may lack some of them.

    Raises:
        UserError: for a folder that is no class, or a class without images.
    """
    folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise UserError(f"{folder}: holds no class folders; data.val_labels can name a list of labels instead")
    indices = {name: index for index, name in enumerate(class_names or folders)}
    paths, labels = [], []
    for name in folders:
        if name not in indices:
            advice = nearest(name, indices) or "; data.class_index and data.class_names say what the classes are"
            raise UserError(f"{folder / name}: is no class of this network{advice}")
        found = find_images(folder / name)
        paths += found
        labels += [indices[name]] * len(found)
    return tuple(indices), paths, np.array(labels, np.int32)


class Samples:
    """Endless source of (key, label, index), key = (epoch, index); each pass over it is the next epoch.

    Args:
        labels: int32 (N,).
        seed: of the order of each epoch.
        shuffle: whether the order is random.
        rank, ranks: this process takes every `ranks`-th sample, beginning at `rank`.
        first_epoch: number of the first pass.
    """

    def __init__(self, labels, seed=0, shuffle=False, rank=0, ranks=1, first_epoch=0):
        self.labels, self.seed, self.shuffle = labels, seed, shuffle
        self.rank, self.ranks = rank, ranks
        self.next_epoch = first_epoch

    def __len__(self):
        return len(range(self.rank, len(self.labels), self.ranks))

    def __iter__(self):
        epoch = self.next_epoch
        self.next_epoch += 1
        order = np.arange(len(self.labels))
        if self.shuffle:
            np.random.default_rng((self.seed, epoch)).shuffle(order)
        for index in order[self.rank :: self.ranks]:
            yield np.array((epoch, index), np.int64), self.labels[index], np.int32(index)


class LoadSample:
    """Pipeline operation: key (epoch, index) -> uint8 (size, size, 3)."""

    def __init__(self, paths, transform, seed):
        self.paths = [os.fspath(path) for path in paths]
        self.transform = transform
        self.seed = seed

    def __call__(self, key):
        epoch, index = (int(number) for number in key)
        # a key of another length than the shuffle's, so that the two streams never meet
        generator = np.random.default_rng((self.seed, epoch, index))
        return np.asarray(self.transform(load_image(self.paths[index]), generator))


class DecodeSample:
    """Pipeline operation: key (epoch, index) -> uint8 (H, W, 3), decoded by MindSpore."""

    def __init__(self, paths):
        self.paths = [os.fspath(path) for path in paths]
        self.decode = vision.Decode()

    def __call__(self, key):
        path = self.paths[int(key[1])]
        try:
            return self.decode(np.fromfile(path, np.uint8))
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{path}: is not a whole image: {reason}") from None


def build_mindspore_operations(paths, size, resize, interpolation):
    """Evaluation as `build_dataset` wants it, decoded and resized by MindSpore's C++ operations.

    Faster than Pillow, but the resize has no antialiasing: on photographs the network's input differs by 0.05
    on average and by up to 4, in units of the standard deviation.
    """
    modes = {"bilinear": vision.Inter.LINEAR, "bicubic": vision.Inter.BICUBIC}
    return [DecodeSample(paths)], [vision.Resize(resize, modes[interpolation]), vision.CenterCrop(size)]


def build_pillow_operations(paths, transform, seed=0):
    """Pictures decoded by Pillow, then `transform`: (PIL image, numpy Generator) -> PIL image of fixed size."""
    return [LoadSample(paths, transform, seed)], []


def build_dataset(samples, operations, batch_size, mean, std, workers=None, drop_remainder=False):
    """Batches of (image, label, index): float32 (B, 3, H, W), normalised, int32 (B,) and int32 (B,).

    Args:
        samples: `Samples`.
        operations: from `build_pillow_operations` or `build_mindspore_operations`: key -> uint8 (H, W, 3).
        mean, std: of each channel, for values in [0, 1].
        workers: threads that decode, at most one a processor core; None: just that.
        drop_remainder: leave the last batch out if it is not full.
    """
    cores = os.cpu_count() or 1  # MindSpore refuses more workers than that
    workers = min(workers or cores, cores)
    dataset = ds.GeneratorDataset(samples, ["image", "label", "index"], shuffle=False, num_parallel_workers=1)
    load, transform = operations
    dataset = dataset.map(load, "image", num_parallel_workers=workers)
    normalise = vision.Normalize([255 * value for value in mean], [255 * value for value in std])
    dataset = dataset.map([*transform, normalise, vision.HWC2CHW()], "image", num_parallel_workers=workers)
    return dataset.batch(batch_size, drop_remainder=drop_remainder)
