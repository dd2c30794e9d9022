"""The task as the entry points use it, with a network that knows the answers; slow: real networks, end to end."""

import csv
import json

import numpy as np
import pytest
from conftest import PROJECT
from mindspore import Tensor
from PIL import Image

from detection.coco_files import CLASSES, content, write_split
from src.config import load_config
from src.detection.transforms import whole_view
from src.errors import UserError
from src.inference import ExportedNetwork
from src.runtime import Runtime
from src.tasks import SCHEMAS, create_task

CONFIG = PROJECT / "configs" / "detection" / "bccd.yaml"
SIZE, PLACES = 64, 6


def create(root, **settings):
    values = {
        "data.path": str(root),
        "network.num_classes": 2,
        "data.image_size": SIZE,
        "data.repeat": 1,
        "train.batch_size": 2,
        "evaluation.batch_size": 2,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    return create_task(load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in values.items()]))


@pytest.fixture
def root(tmp_path):
    write_split(tmp_path, "train2017")
    write_split(tmp_path, "val2017")
    return tmp_path


class Oracle(ExportedNetwork):
    """Gives each picture's objects as predictions, in the order of evaluation, among places without any."""

    def __init__(self, pictures):
        self.pictures = list(pictures)

    def __call__(self, images):
        boxes = np.zeros((len(images), PLACES, 4), np.float32)
        objectness, scores = np.zeros((len(images), PLACES), np.float32), np.zeros((len(images), PLACES, 2), np.float32)
        for index in range(len(images)):
            if self.pictures:  # the last batch is filled up
                picture = self.pictures.pop(0)
                found, labels = picture.objects()
                view = whole_view(picture.width, picture.height, SIZE)
                boxes[index, 1 : len(found) + 1] = view.to_input(found)
                objectness[index, 1 : len(found) + 1] = 1
                scores[index, np.arange(len(found)) + 1, labels] = 0.9
        return tuple(Tensor(values) for values in (boxes, objectness, scores))


def test_objects_as_predictions_have_precision_one(root, tmp_path):
    task = create(root)
    dataset = task.build_dataset("val", Runtime("CPU"))
    result = task.evaluate(Oracle(task.annotations["val"].pictures), dataset, tmp_path / "details")
    assert result["AP"] == pytest.approx(1) and result["images"] == 3
    rows = list(csv.reader((tmp_path / "details" / "per_class.csv").open()))
    assert [row[0] for row in rows[1:]] == list(CLASSES)
    detections = json.loads((tmp_path / "details" / "detections.json").read_text())
    expected = {tuple(entry["bbox"]): entry["category_id"] for entry in content()["annotations"]}
    assert {tuple(np.round(entry["bbox"], 3)): entry["category_id"] for entry in detections} == expected


def test_prediction_lists_and_draws(root, tmp_path):
    task = create(root)
    task.build_dataset("val", Runtime("CPU"))
    picture = task.annotations["val"].pictures[0]
    lines = list(task.predict(Oracle([picture, picture]), [picture.path, picture.path], tmp_path / "drawn"))
    assert lines[:4] == [
        f"{picture.path}: 2 detected",
        "   90.00%  dog  10.0 5.0 30.0 35.0",
        "   90.00%  cat  30.5 10.0 50.5 20.0",
        f"  drawn: {tmp_path / 'drawn' / 'a.png'}",
    ]
    assert lines[-1] == f"  drawn: {tmp_path / 'drawn' / 'a_2.png'}"
    with Image.open(tmp_path / "drawn" / "a.png") as drawing, Image.open(picture.path) as original:
        changed = (np.asarray(drawing) != np.asarray(original)).any(2)
    assert changed[10:35, 10].all() and changed[35, 10:31].all() and not changed[25:34, 12:29].any()


def test_a_network_of_other_classes_is_named(root):
    task = create(root)
    dataset = task.build_dataset("val", Runtime("CPU"))
    write_split(root, "val2017", {**content(), "categories": [*content()["categories"], {"id": 50, "name": "cow"}]})
    other = create(root, network__num_classes=3)
    other.build_dataset("val", Runtime("CPU"))
    with pytest.raises(UserError, match="the network gives 2 classes, the settings say 3; --num_classes 2"):
        other.evaluate(Oracle(task.annotations["val"].pictures), dataset)


def test_classes_come_from_the_data_and_must_fit(root):
    task = create(root)
    assert task.class_names() == ("class 0", "class 1")
    task.build_dataset("train", Runtime("CPU"))
    assert task.class_names() == task.config.data.class_names == CLASSES
    with pytest.raises(UserError, match=r"has 2 categories, the network 3 classes; --num_classes 2 builds one"):
        create(root, network__num_classes=3).build_dataset("train", Runtime("CPU"))
    with pytest.raises(UserError, match=r"has the categories cat, dog; data\.class_names says cat, cow"):
        create(root, data__class_names=["cat", "cow"]).build_dataset("val", Runtime("CPU"))


def test_padding_becomes_nothing_behind_normalisation(root):
    images, _ = next(create(root).build_dataset("val", Runtime("CPU")).create_tuple_iterator(output_numpy=True))
    assert images.shape == (2, 3, SIZE, SIZE)
    wide, tall = images  # of 60x40 and 40x50 pixels
    assert np.abs(wide[:, 43:]).max() < 0.01 < np.abs(wide[:, :43]).mean()
    assert np.abs(tall[:, :, 51:]).max() < 0.01 < np.abs(tall[:, :, :51]).mean()


def test_length_of_an_epoch(root):
    task = create(root, data__repeat=5)  # 15 pictures
    assert task.build_dataset("train", Runtime("CPU")).get_dataset_size() == 7
    assert task.build_dataset("train", Runtime("CPU", 1, 2)).get_dataset_size() == 3
    assert task.build_dataset("train", Runtime("CPU"), 2, 3).get_dataset_size() == 4
    with pytest.raises(UserError, match="has 3 images, too few for one update of 4: on each of 2 devices"):
        create(root).build_dataset("train", Runtime("CPU", 0, 2))
    with pytest.raises(UserError, match="has 3 images, too few for one on each of 4 devices"):
        create(root).build_dataset("val", Runtime("CPU", 0, 4))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network.anchors", [[[1, 2]] * 3] * 2, r"anchors: needs a row of 3 anchors for each of the strides"),
        ("network.anchors", [[[1, 0]] * 3] * 3, r"network\.anchors: 0\.0 is out of range"),
        ("network.output_stride", 8, r"output_stride: 8 is not 32"),
        ("augment.contrast", [1.5, 0.5], r"contrast: \[1\.5, 0\.5\] is not in rising order"),
        ("inference.detections", 101, r"inference\.detections: 101 is out of range: .* at most 100"),
    ],
)
def test_settings_out_of_range_are_named(root, key, value, message):
    with pytest.raises(UserError, match=message):
        create(root, **{key.replace(".", "__"): value})
