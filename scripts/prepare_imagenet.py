"""Unpack ImageNet-1k into class folders: python scripts/prepare_imagenet.py data/imagenet --train FILE

FILE is ILSVRC2012_img_train.tar. --val ILSVRC2012_img_val.tar needs --labels: the development kit,
ILSVRC2012_devkit_t12.tar.gz, or a list of labels. The result is DIR/train/WNID/*.JPEG and DIR/val/WNID/*.JPEG. Nothing
is downloaded, and the same command goes on where it was stopped.

Counts as published: 1,281,167 training images, 732 to 1,300 a class; 50,000 validation images, 50 a class.
"""

import sys
import tarfile
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.classification.dataset import list_class_folders
from src.classification.imagenet import DEVKIT_IDS, load_classes, read_labels
from src.console import Parser, run
from src.data.archives import DAMAGE, list_tar, select
from src.data.images import load_image
from src.data.unpacking import (
    Folder,
    add_arguments,
    check_arguments,
    check_count,
    check_each,
    list_folder,
    splits_to_check,
    unpack,
)
from src.errors import UserError

IMAGES = {"train": 1_281_167, "val": 50_000}
PER_CLASS = {"train": (732, 1300), "val": (50, 50)}
DEVKIT_ENDING = ".tar.gz"
DEVKIT_LABELS = "ILSVRC2012_validation_ground_truth.txt"
MAX_DEVKIT = 2**26  # bytes of all its files


def list_train(archive, root, is_part) -> list:
    """List the class folders that a tar of 1000 tars becomes, `Folder`s."""
    wnids = load_classes()[0]
    tars = select(list_tar(archive), ".", ".tar")
    if not tars:
        raise UserError(f"{archive}: holds no tars of classes, such as {wnids[0]}.tar")
    for name, member in tars.items():
        if name.removesuffix(".tar") not in wnids:
            raise member.error("is not named after a class of ImageNet-1k")
    check_count(archive, len(tars), len(wnids), "classes", is_part)

    def list_members(member):
        return select(list_tar(archive, member), ".")

    return [
        Folder(root / name.removesuffix(".tar"), member.size, partial(list_members, member))
        for name, member in sorted(tars.items())
    ]


def list_val(archive, labels, root, is_part) -> list:
    """List the class folders that a flat tar of images becomes, `Folder`s."""
    wnids = load_classes()[0]
    members = select(list_tar(archive), ".")
    if not members:
        raise UserError(f"{archive}: holds no images at its top")
    check_count(archive, len(members), IMAGES["val"], "images", is_part)
    names = sorted(members)
    classes = {}
    for name, label in zip(names, read_val_labels(labels, [Path(name) for name in names], wnids)):
        classes.setdefault(wnids[label], {})[name] = members[name]
    return [list_folder(root / wnid, chosen) for wnid, chosen in sorted(classes.items())]


def read_val_labels(path, files, wnids):
    """Read the labels of images from the development kit, or from a list, see `read_labels`."""
    if not path.name.endswith(DEVKIT_ENDING):
        return read_labels(path, files, wnids)
    with tempfile.TemporaryDirectory() as folder:
        read_devkit(path, Path(folder))
        try:
            return read_labels(Path(folder) / DEVKIT_LABELS, files, wnids)
        except UserError as error:
            raise UserError(str(error).replace(folder, str(path))) from None


def read_devkit(path, folder) -> None:
    """Copy the labels, and the classes that explain them, from the development kit to a folder.

    Raises:
        UserError: if the file is damaged, or another one.
    """
    missing, size = {DEVKIT_LABELS, DEVKIT_IDS}, 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for entry in archive:
                size += entry.size
                if not 0 <= size <= MAX_DEVKIT:
                    raise UserError(f"{path}: {entry.name}: is too large for the development kit")
                name = Path(entry.name).name
                if name in missing and entry.isfile():
                    (folder / name).write_bytes(archive.extractfile(entry).read())
                    missing.remove(name)
    except DAMAGE as error:
        raise UserError(f"{path}: is not a whole development kit: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    if missing:
        raise UserError(f"{path}: is not the development kit: it holds no {' and no '.join(sorted(missing))}")


def check_split(root, split, arguments) -> None:
    """Check the class folders of a split as training and evaluation see them, and print what there is.

    Raises:
        UserError: naming the first that is wrong.
    """
    folder, wnids = root / split, load_classes()[0]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    _, paths, labels, _ = list_class_folders(folder, wnids)
    counts = np.bincount(labels, minlength=len(wnids))
    check_count(folder, np.count_nonzero(counts), len(wnids), "classes", arguments.partial)
    low, high = PER_CLASS[split]
    for wnid, count in zip(wnids, counts):
        if not (low <= count <= high or arguments.partial):
            published = f"{low:,} to {high:,}" if low < high else low
            raise UserError(f"{folder / wnid}: has {count:,} images, published are {published}; remove it to unpack it")
    check_count(folder, len(paths), IMAGES[split], "images", arguments.partial)
    if arguments.check:
        check_each(load_image, paths, arguments.jobs, f"check {split}")
    print(f"{folder}: {len(paths):,} images in {np.count_nonzero(counts):,} classes")


def main():
    parser = Parser(__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--train", type=Path, metavar="FILE", help="ILSVRC2012_img_train.tar")
    parser.add_argument("--val", type=Path, metavar="FILE", help="ILSVRC2012_img_val.tar")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="ILSVRC2012_devkit_t12.tar.gz, or a list of labels")
    arguments = parser.parse_args()
    check_arguments(arguments, ("train", "val"), ("labels",) if arguments.val else ())
    root, folders = arguments.folder, []
    if arguments.train:
        folders += list_train(arguments.train, root / "train", arguments.partial)
    if arguments.val:
        folders += list_val(arguments.val, arguments.labels, root / "val", arguments.partial)
    unpack(root, folders, arguments.jobs)
    for split in splits_to_check(arguments, {split: root / split for split in IMAGES}):
        check_split(root, split, arguments)


if __name__ == "__main__":
    run(main)
