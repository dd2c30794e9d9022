"""COCO's annotation files, read and checked: `annotations/instances_{train2017,val2017}.json` beside the images.

Whatever the file, each mistake in it is named with the file and the entry's id, or treated as COCO treats it:

- crowds and boxes less than a pixel wide or high inside the image are left out of training, and evaluated as
  pycocotools does; boxes that reach beyond the image are cut off at its edge for training;
- images without boxes are kept: background in training, a place for false alarms in evaluation.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.detection.boxes import clip_boxes, to_corners
from src.errors import UserError
from src.fields import check
from src.files import refuse_other_than_file

SPLIT_NAMES = {"train": "train2017", "val": "val2017"}
KEYS = {
    "images": {"id": int, "file_name": str, "width": int, "height": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int, "bbox": list},
}
TYPE_NAMES = {int: "a whole number", str: "a text", list: "a list"}
MIN_SIDE = 1.0  # pixels of a box in training
MAX_PIXELS = 2**20  # of a side of an image
MAX_NUMBER = 2**53  # of ids, and of the sides of boxes


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its M annotations, as the file has them.

    Attributes:
        id: in the file.
        path, width, height: of the image.
        boxes: float64 (M, 4): left, top, width, height.
        labels: int32 (M,), indices of the categories in the order of their ids.
        areas: float64 (M,).
        is_crowd: bool (M,).
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray

    def objects(self):
        """Give what training sees: boxes float32 (K, 4), xyxy, inside the image, and their labels (K,)."""
        boxes = to_corners(self.boxes)
        boxes = clip_boxes(boxes, (0, 0, self.width, self.height))
        kept = ~self.is_crowd & ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(axis=1)
        return boxes[kept].astype(np.float32), self.labels[kept]


@dataclass(frozen=True)
class Annotations:
    """An annotation file: the class names and category ids in the order of the ids, and the images."""

    path: Path
    class_names: tuple
    category_ids: tuple
    images: tuple


def read_annotations(root, split) -> Annotations:
    """Read the annotation file of a split, 'train' or 'val', below the folder `root`.

    Raises:
        UserError: naming what is wrong, and where.
    """
    root, name = Path(root), SPLIT_NAMES[split]
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; --data_url or data.path names it")
    path, folder = root / "annotations" / f"instances_{name}.json", root / name
    content = read_content(path)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    labels = {category["id"]: label for label, category in enumerate(categories)}
    entries = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        entries[annotation["image_id"]].append(annotation)
    images = tuple(_build_image(path, folder, image, entries[image["id"]], labels) for image in content["images"])
    if not images:
        raise UserError(f"{path}: holds no images")
    if split == "train" and not any(len(image.objects()[1]) for image in images):
        raise UserError(f"{path}: holds no boxes to train on")
    names = tuple(category["name"] for category in categories)
    return Annotations(path, names, tuple(labels), images)


def read_content(path) -> dict:
    """Read an annotation file as it is, and check it; the images' files are not looked for.

    Raises:
        UserError: naming what is wrong, and where.
    """
    path = Path(path)
    content = _read_json(path)
    for section, keys in KEYS.items():
        _check_entries(path, content, section, keys)
    _check_names(path, content["categories"])
    _check_images(path, content["images"])
    images, categories = ({entry["id"] for entry in content[section]} for section in ("images", "categories"))
    for annotation in content["annotations"]:
        _check_annotation(path, annotation, images, categories)
    return content


def _read_json(path) -> dict:
    refuse_other_than_file(path, "annotations are")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: is not valid JSON: {error.msg}") from None
    except RecursionError:
        raise UserError(f"{path}: is not valid JSON: lists and objects in too many levels") from None
    except ValueError:  # Python refuses to convert some thousand digits
        raise UserError(f"{path}: is not valid JSON: a number has too many digits") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a COCO file: it holds no {', '.join(KEYS)}")
    return content


def _check_entries(path, content, section, keys):
    """Check that a section is a list of entries that have these keys, of these types, and ids of their own."""
    if not isinstance(content.get(section), list):
        raise UserError(f"{path}: is not a COCO file: it has no list of {section}")
    seen = set()
    for place, entry in enumerate(content[section]):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {section}[{place}] is not an entry with keys")
        name = f"{section} id {entry['id']}" if type(entry.get("id")) is int else f"{section}[{place}]"
        for key, kind in keys.items():
            if key not in entry:
                raise UserError(f"{path}: {name} has no {key!r}")
            if type(entry[key]) is not kind:
                raise UserError(f"{path}: {name}: {key} {entry[key]!r} is not {TYPE_NAMES[kind]}")
        if abs(entry["id"]) > MAX_NUMBER:
            raise UserError(f"{path}: {section}[{place}]: id {entry['id']} is out of range: at most {MAX_NUMBER}")
        if entry["id"] in seen:
            raise UserError(f"{path}: {name} is there twice")
        seen.add(entry["id"])


def _check_annotation(path, annotation, images, categories):
    """Check that an annotation belongs to an image and a category and has a box."""
    name = f"{path}: annotations id {annotation['id']}"
    for key, known in (("image_id", images), ("category_id", categories)):
        if annotation[key] not in known:
            raise UserError(f"{name}: {key} {annotation[key]} is not in the file")
    box, area = annotation["bbox"], annotation.get("area", 0)
    if len(box) != 4 or not all(_is_number(side) for side in box):
        raise UserError(f"{name}: bbox {box} is not left, top, width and height")
    if min(box[2:]) < 0:
        raise UserError(f"{name}: bbox {box} has a negative side")
    if not _is_number(area) or area < 0:
        raise UserError(f"{name}: area {area!r} is not a number of pixels")
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise UserError(f"{name}: iscrowd {annotation['iscrowd']!r} is not one of 0, 1, false, true")


def _is_number(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= MAX_NUMBER  # which nan is not


def _check_names(path, categories):
    """Check that the names of the categories can be told apart."""
    seen = set()
    for category in categories:
        try:
            name = check(category["name"], str)
        except UserError as error:
            raise UserError(f"{path}: categories id {category['id']}: name: {error}") from None
        if name in seen:
            raise UserError(f"{path}: categories id {category['id']}: the name {name!r} is there twice")
        seen.add(name)


def _check_images(path, images):
    """Check that images have a size, and files of their own below the folder of the split."""
    seen = set()
    for image in images:
        name, sides, file = f"{path}: images id {image['id']}", (image["width"], image["height"]), image["file_name"]
        if not 1 <= min(sides) <= max(sides) <= MAX_PIXELS:
            raise UserError(f"{name} has {sides[0]}x{sides[1]} pixels, allowed are 1 to {MAX_PIXELS} a side")
        if os.path.isabs(file) or ".." in Path(file).parts:
            raise UserError(f"{name}: file_name {file!r} is not below the folder of the images")
        if file in seen:
            raise UserError(f"{name}: file_name {file!r} is there twice")
        seen.add(file)


def _build_image(path, folder, image, annotations, labels):
    """Build the `AnnotatedImage` of an entry of the file and its annotations."""
    file = folder / image["file_name"]
    if not os.path.isfile(file):  # unlike pathlib's, this never raises
        raise UserError(f"{path}: images id {image['id']}: {file}: no such file")
    boxes = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
    areas = [annotation.get("area", box[2] * box[3]) for annotation, box in zip(annotations, boxes)]
    return AnnotatedImage(
        image["id"],
        file,
        image["width"],
        image["height"],
        boxes,
        np.array([labels[annotation["category_id"]] for annotation in annotations], np.int32),
        np.array(areas, np.float64),
        np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], bool),
    )
