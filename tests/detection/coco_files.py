"""A small dataset in COCO's layout, for tests to change as they like."""

import copy
import json

import numpy as np
from helpers import PROJECT
from PIL import Image

from src.config import load_config
from src.detection.annotations import read_annotations
from src.tasks import SCHEMAS, create_task

CONFIG = PROJECT / "configs" / "detection" / "bccd.yaml"
SIZE = 64  # of the input

# category ids out of order, with gaps: the order of the ids is that of the classes
CONTENT = {
    "images": [
        {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
        {"id": 3, "file_name": "b.png", "width": 40, "height": 50},
        {"id": 90, "file_name": "c.png", "width": 50, "height": 50},
    ],
    "categories": [{"id": 44, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 44, "bbox": [10, 5, 20, 30], "area": 600, "iscrowd": 0},
        {"id": 5, "image_id": 7, "category_id": 2, "bbox": [30.5, 10, 20, 10], "area": 200, "iscrowd": 0},
        {"id": 6, "image_id": 3, "category_id": 2, "bbox": [0, 0, 40, 50], "area": 2000, "iscrowd": 0},
    ],
}
CLASSES = ("cat", "dog")


def content():
    """A copy of `CONTENT` to change."""
    return copy.deepcopy(CONTENT)


def write_split(root, name="train2017", described=CONTENT):
    """Write the annotation file, and images of noise; returns the file's path."""
    rng = np.random.default_rng(0)
    for image in CONTENT["images"]:
        path = root / name / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (image["height"], image["width"], 3), np.uint8)).save(path)
    path = root / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(described if isinstance(described, str) else json.dumps(described))
    return path


def write_and_read(root, split="train", described=CONTENT):
    """Write a split, 'train' or 'val'; returns its `Annotations`."""
    write_split(root, f"{split}2017", described)
    return read_annotations(root, split)


def create(root, settings=None):
    """The detection task for a dataset like this one in `root`: input of `SIZE`, batches of two images."""
    values = {
        "data.path": str(root),
        "network.num_classes": len(CLASSES),
        "data.image_size": SIZE,
        "data.repeat": 1,
        "train.batch_size": 2,
        "evaluation.batch_size": 2,
        **(settings or {}),
    }
    return create_task(load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in values.items()]))
