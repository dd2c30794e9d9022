"""COCO's annotation files: read right, and each mistake named in one line or treated as COCO treats it."""

import codecs

import numpy as np
import pytest
from detection.coco_files import CLASSES, CONTENT, content, write_and_read, write_split

from src.detection.annotations import read_annotations
from src.errors import UserError


def test_classes_are_in_the_order_of_their_ids(tmp_path):
    annotations = write_and_read(tmp_path)
    assert (annotations.class_names, annotations.category_ids) == (CLASSES, (2, 44))
    assert [image.id for image in annotations.images] == [7, 3, 90]
    boxes, labels = annotations.images[0].objects()
    assert boxes.dtype == np.float32 and labels.dtype == np.int32
    assert boxes.tolist() == [[10, 5, 30, 35], [30.5, 10, 50.5, 20]] and labels.tolist() == [1, 0]
    boxes, labels = annotations.images[2].objects()
    assert boxes.shape == (0, 4) and labels.shape == (0,)  # background


def test_what_training_leaves_out_and_evaluation_keeps(tmp_path):
    described = content()
    described["annotations"] += [
        {"id": 10, "image_id": 90, "category_id": 2, "bbox": [-5, 40, 15, 20]},  # cut off at two edges
        {"id": 11, "image_id": 90, "category_id": 2, "bbox": [10, 10, 0, 20], "area": 3.5},
        {"id": 12, "image_id": 90, "category_id": 2, "bbox": [60, 10, 5, 5]},  # beyond the image
        {"id": 13, "image_id": 90, "category_id": 44, "bbox": [0, 0, 50, 50], "iscrowd": 1},
        {"id": 14, "image_id": 90, "category_id": 44, "bbox": [10, 10, 0.5, 0.5]},
    ]
    image = write_and_read(tmp_path, described=described).images[2]
    boxes, labels = image.objects()
    assert boxes.tolist() == [[0, 40, 10, 50]] and labels.tolist() == [0]
    assert image.boxes.tolist() == [entry["bbox"] for entry in described["annotations"][3:]]
    assert image.is_crowd.tolist() == [False, False, False, True, False]
    assert image.areas.tolist() == [300, 3.5, 25, 2500, 0.25]


def change(section, place, **values):
    """The content with one entry changed; a value of None removes the key."""
    described = content()
    described[section][place].update(values)
    described[section][place] = {key: value for key, value in described[section][place].items() if value is not None}
    return described


def without(section):
    return {key: value for key, value in CONTENT.items() if key != section}


MISTAKES = {
    "broken": ('{"images": [\n{"id": 3,,', ":2: is not valid JSON: "),
    "empty": ("", ":1: is not valid JSON: "),
    "list": ("[1, 2]", ": is not a COCO file: it holds no images, categories, annotations"),
    "no section": (without("annotations"), ": is not a COCO file: it has no list of annotations"),
    "no entry": ({**CONTENT, "images": [3]}, ": images[0] is not an entry with keys"),
    "no id": (change("annotations", 1, id=None), ": annotations[1] has no 'id'"),
    "no box": (change("annotations", 1, bbox=None), ": annotations id 5 has no 'bbox'"),
    "no name": (change("images", 1, file_name=None), ": images id 3 has no 'file_name'"),
    "type": (change("images", 1, width="40"), ": images id 3: width '40' is not a whole number"),
    "twice": (change("annotations", 1, id=6), ": annotations id 6 is there twice"),
    "image twice": (change("images", 1, id=7), ": images id 7 is there twice"),
    "category": (change("annotations", 1, category_id=3), ": annotations id 5: category_id 3 is not in the file"),
    "image": (change("annotations", 1, image_id=4), ": annotations id 5: image_id 4 is not in the file"),
    "three": (change("annotations", 1, bbox=[1, 2, 3]), "id 5: bbox [1, 2, 3] is not left, top, width and height"),
    "text": (change("annotations", 1, bbox=[1, 2, "3", 4]), "id 5: bbox [1, 2, '3', 4] is not left, top"),
    "nan": (change("annotations", 1, bbox=[1, 2, 3, float("nan")]), "id 5: bbox [1, 2, 3, nan] is not left, top"),
    "negative": (change("annotations", 1, bbox=[1, 2, -3, 4]), "id 5: bbox [1, 2, -3, 4] has a negative side"),
    "area": (change("annotations", 1, area="big"), "id 5: area 'big' is not a number"),
    "size": (change("images", 1, height=0), ": images id 3 has 40x0 pixels"),
    "no file": (change("images", 1, file_name="d.png"), "images id 3: "),
    "no images": ({**CONTENT, "images": [], "annotations": []}, ": holds no images"),
    "no boxes": ({**CONTENT, "annotations": []}, ": holds no boxes to train on"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(tmp_path, name):
    described, message = MISTAKES[name]
    path = write_split(tmp_path, described=described)
    with pytest.raises(UserError) as error:
        read_annotations(tmp_path, "train")
    text = str(error.value)
    assert text.startswith(str(path)) and message in text and "\n" not in text


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; --data_url or data\.path names it"):
        read_annotations(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match=r"instances_val2017\.json: No such file or directory"):
        read_annotations(tmp_path, "val")
    described = change("images", 1, file_name="d.png")
    with pytest.raises(UserError, match=r"images id 3: .*train2017/d\.png: no such file"):
        write_and_read(tmp_path, described=described)


def test_files_of_editors_that_mark_the_order_of_bytes(tmp_path):
    path = write_split(tmp_path)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert read_annotations(tmp_path, "train").class_names == CLASSES


def test_names_may_hold_folders(tmp_path):
    folder = tmp_path / "train2017" / "2024"
    folder.mkdir(parents=True)
    described = change("images", 1, file_name="2024/b.png")
    path = write_split(tmp_path, described=described)
    (tmp_path / "train2017" / "b.png").rename(folder / "b.png")
    assert read_annotations(tmp_path, "train").images[1].path == path.parents[1] / "train2017" / "2024" / "b.png"


def test_evaluation_needs_no_boxes(tmp_path):
    annotations = write_and_read(tmp_path, "val", {**CONTENT, "annotations": []})
    assert sum(len(image.boxes) for image in annotations.images) == 0
