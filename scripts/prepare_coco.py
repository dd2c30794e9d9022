"""Unpack COCO 2017 for detection: python scripts/prepare_coco.py data/coco --train train2017.zip --annotations FILE

--val val2017.zip is the other half, annotations_trainval2017.zip the FILE. The result is the layout of
docs/detection.md, each annotation checked and each image decoded. Nothing is downloaded, and the same command goes on
where it was stopped.

Counts as published: 118,287 training images, 5,000 validation images, 80 categories.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.console import Parser, run
from src.data.archives import list_zip, select
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
from src.detection.annotations import SPLIT_NAMES, read_annotations
from src.detection.dataset import load_annotated
from src.errors import UserError

IMAGES = {"train": 118_287, "val": 5_000}
CATEGORIES = 80
ANNOTATIONS = "annotations"
INSTANCES = tuple(f"instances_{name}.json" for name in SPLIT_NAMES.values())
EDGE = 0.01  # pixels: COCO's boxes are rounded to two decimals


def list_annotations(archive, root) -> Folder:
    """List the annotation files of both splits in an archive."""
    chosen = select(list_zip(archive), ANNOTATIONS, INSTANCES)
    for name in INSTANCES:
        if name not in chosen:
            raise UserError(f"{archive}: holds no {ANNOTATIONS}/{name}")
    return list_folder(root / ANNOTATIONS, chosen)


def list_images(archive, root, split, is_part) -> Folder:
    """List the images of a split in an archive."""
    name = SPLIT_NAMES[split]
    chosen = select(list_zip(archive), name)
    if not chosen:
        raise UserError(f"{archive}: holds no images in {name}/")
    check_count(archive, len(chosen), IMAGES[split], "images", is_part)
    return list_folder(root / name, chosen)


def check_split(root, split, arguments) -> None:
    """Check the annotations and images of a split as training and evaluation read them, and print what there is.

    Raises:
        UserError: naming the first that is wrong.
    """
    annotations = read_annotations(root, split)
    check_count(annotations.path, len(annotations.images), IMAGES[split], "images", arguments.partial)
    check_count(annotations.path, len(annotations.category_ids), CATEGORIES, "categories", arguments.partial)
    load = partial(load_annotated, exif_rotation=False)
    check_each(load, annotations.images, arguments.jobs, f"check {split}")
    categories = len(annotations.category_ids)
    print(f"{root / SPLIT_NAMES[split]}: {len(annotations.images):,} images, {categories} categories")
    print(", ".join(f"{name}: {count:,}" for name, count in count_kinds(annotations.images).items()))


def count_kinds(images) -> dict:
    """Count the annotations of `AnnotatedImage`s, and those kinds that training treats in a way of their own."""
    boxes = np.concatenate([image.boxes for image in images])
    sizes = np.repeat([(image.width, image.height) for image in images], [len(image.boxes) for image in images], axis=0)
    crowds = np.concatenate([image.is_crowd for image in images])
    beyond = (boxes[:, :2] < -EDGE).any(1) | (boxes[:, :2] + boxes[:, 2:] > sizes + EDGE).any(1)
    used = sum(len(image.objects()[1]) for image in images)
    return {
        "annotations": len(boxes),
        "crowds": np.count_nonzero(crowds),
        "without an area": np.count_nonzero((boxes[:, 2:] <= 0).any(1)),
        "less than a pixel wide or high in the image": len(boxes) - np.count_nonzero(crowds) - used,
        "cut off at the image's edge": np.count_nonzero(beyond),
        "images without annotations": sum(len(image.boxes) == 0 for image in images),
    }


def main():
    parser = Parser(__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--train", type=Path, metavar="FILE", help="train2017.zip")
    parser.add_argument("--val", type=Path, metavar="FILE", help="val2017.zip")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="annotations_trainval2017.zip")
    arguments = parser.parse_args()
    check_arguments(arguments, ("train", "val"), ("annotations",))
    root = arguments.folder
    folders = [] if arguments.check else [list_annotations(arguments.annotations, root)]
    for split in IMAGES:
        if getattr(arguments, split):
            folders.append(list_images(getattr(arguments, split), root, split, arguments.partial))
    unpack(root, folders, arguments.jobs)
    for split in splits_to_check(arguments, {split: root / name for split, name in SPLIT_NAMES.items()}):
        check_split(root, split, arguments)


if __name__ == "__main__":
    run(main)
