"""Unpack ADE20K for segmentation: python scripts/prepare_ade20k.py data/ADEChallengeData2016 --archive FILE

FILE is ADEChallengeData2016.zip, of the scene parsing benchmark with 150 classes. The result is the layout of
docs/segmentation.md, each image and mask decoded and checked. Nothing is downloaded, and the same command goes on where
it was stopped.

Counts as published: 20,210 training images, 2,000 validation images.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.console import Parser, run
from src.data.archives import list_zip, select
from src.data.unpacking import add_arguments, check_arguments, check_count, check_each, list_folder, unpack
from src.errors import UserError
from src.segmentation.dataset import SPLIT_FOLDERS, load_pair, pair_files

IMAGES = {"train": 20_210, "val": 2_000}
CLASSES = 150
TOP = "ADEChallengeData2016"  # folder in the archive


def list_folders(archive, root, is_part) -> list:
    """List the folders of images and masks in an archive, `Folder`s."""
    members, folders = list_zip(archive), []
    for kind in ("images", "annotations"):
        for split, name in SPLIT_FOLDERS.items():
            chosen = select(members, f"{TOP}/{kind}/{name}")
            if not chosen:
                raise UserError(f"{archive}: holds no images in {TOP}/{kind}/{name}/")
            check_count(f"{archive}: {TOP}/{kind}/{name}", len(chosen), IMAGES[split], "files", is_part)
            folders.append(list_folder(root / kind / name, chosen))
    return folders


def check_split(root, split, arguments) -> None:
    """Check the images and masks of a split as training and evaluation read them, and print what there is.

    Raises:
        UserError: naming the first that is wrong.
    """
    folder = root / "images" / SPLIT_FOLDERS[split]
    pairs, _ = pair_files(root, split)
    check_count(folder, len(pairs), IMAGES[split], "images", arguments.partial)
    load = partial(load_pair, num_classes=CLASSES, exif_rotation=False)
    check_each(lambda pair: load(*pair), pairs, arguments.jobs, f"check {split}")
    print(f"{folder}: {len(pairs):,} images, each with a mask of its size and values from 0 to {CLASSES}")


def main():
    parser = Parser(__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--archive", type=Path, metavar="FILE", help="ADEChallengeData2016.zip")
    arguments = parser.parse_args()
    check_arguments(arguments, ("archive",), ())
    if not arguments.check:
        folders = list_folders(arguments.archive, arguments.folder, arguments.partial)
        unpack(arguments.folder, folders, arguments.jobs)
    for split in IMAGES:
        check_split(arguments.folder, split, arguments)


if __name__ == "__main__":
    run(main)
