"""The task as the entry points use it, with a network that knows the answers, and settings that are wrong."""

import csv
import json
import shutil

import numpy as np
import pytest
from detection.coco_files import CLASSES, CONFIG, SIZE, content, create
from helpers import call_here
from mindspore import Tensor
from PIL import Image

from src.detection.transforms import whole_view
from src.errors import UserError
from src.inference.prediction import predict_images
from src.layers.arrays import ArrayNetwork
from src.ranks import Ranks
from src.settings import with_class_names
from src.tasks import create_task

PLACES = 6
LINE = ("--config", CONFIG, "--checkpoint_path", "any", "--num_classes", 2)
FOUND = ("   90.00%  dog  10.0 5.0 30.0 35.0", "   90.00%  cat  30.5 10.0 50.5 20.0")


class Oracle:
    """Gives each image's objects as predictions, in the order of evaluation, among places without any."""

    def __init__(self, images):
        self.images = list(images)

    def set_train(self, mode=True):
        return self

    def __call__(self, batch):
        boxes = np.zeros((len(batch), PLACES, 4), np.float32)
        objectness, scores = np.zeros((len(batch), PLACES), np.float32), np.zeros((len(batch), PLACES, 2), np.float32)
        for index in range(len(batch)):
            if self.images:  # the last batch is filled up
                image = self.images.pop(0)
                found, labels = image.objects()
                view = whole_view(image.width, image.height, SIZE)
                boxes[index, 1 : len(found) + 1] = view.to_input(found)
                objectness[index, 1 : len(found) + 1] = 1
                scores[index, np.arange(len(found)) + 1, labels] = 0.9
        return tuple(Tensor(values) for values in (boxes, objectness, scores))


def test_objects_as_predictions_have_precision_one(root, tmp_path):
    task = create(root)
    dataset = task.build_dataset("val", Ranks())
    result = task.evaluate(Oracle(dataset.records.images), dataset, tmp_path / "details")
    assert result["AP"] == pytest.approx(1) and result["images"] == 3
    rows = list(csv.reader((tmp_path / "details" / "per_class.csv").open()))
    assert [row[0] for row in rows[1:]] == list(CLASSES)
    detections = json.loads((tmp_path / "details" / "detections.json").read_text())
    expected = {tuple(entry["bbox"]): entry["category_id"] for entry in content()["annotations"]}
    assert {tuple(np.round(entry["bbox"], 3)): entry["category_id"] for entry in detections} == expected


def test_prediction_lists_and_draws(root, tmp_path):
    task = create(root, {"data.class_names": list(CLASSES)})
    image = task.build_dataset("val", Ranks()).records.images[0]
    predictor = task.build_predictor(ArrayNetwork(Oracle([image, image])))
    predictions = list(predict_images(predictor, [image.path, image.path], tmp_path / "drawn"))
    lines = [line for prediction in predictions for line in prediction.lines]
    drawings = [f"  drawn: {tmp_path / 'drawn' / name}" for name in ("a.png", "a_2.png")]
    assert lines == [line for drawn in drawings for line in (f"{image.path}: 2 detected", *FOUND, drawn)]
    with Image.open(tmp_path / "drawn" / "a.png") as drawing, Image.open(image.path) as original:
        changed = (np.asarray(drawing) != np.asarray(original)).any(2)
    assert changed[10:35, 10].all() and changed[35, 10:31].all() and not changed[25:34, 12:29].any()


def predict(root, monkeypatch, name, flag, *settings):
    """The lines of `scripts/predict.py` about an image that holds the objects of the first one."""
    image = create(root).build_dataset("val", Ranks()).records.images[0]
    monkeypatch.setattr("scripts.predict.load_network", lambda *arguments: (Oracle([image]), "an oracle"))
    needed = (f"data.image_size={SIZE}", "data.class_names=[cat,dog]", "runtime.compile_cache=false")
    result = call_here("scripts/predict.py", name, *LINE, *flag, *settings, *needed, cwd=root)
    assert (result.returncode, result.stderr) == (0, "")
    loaded, *lines = result.stdout.splitlines()
    assert loaded == "an oracle"
    return lines


@pytest.mark.parametrize("flag", [(), ("--set",)], ids=["end of the line", "--set"])
@pytest.mark.parametrize(("score", "shown"), [(0.95, 0), (0.5, 2)])
def test_settings_on_the_line_of_predict(root, monkeypatch, flag, score, shown):
    """They do the same at the end, where images could stand as well, as behind `--set`."""
    lines = predict(root, monkeypatch, "val2017/a.png", flag, f"inference.drawn_score={score}")
    assert lines == [f"val2017/a.png: {shown} detected", *FOUND[:shown]]


def test_an_image_named_like_a_setting_is_an_image(root, monkeypatch):
    name = "inference.drawn_score=0.95.png"
    shutil.copy(root / "val2017" / "a.png", root / name)
    assert predict(root, monkeypatch, name, ()) == [f"{name}: 2 detected", *FOUND]
    (root / name).unlink()
    result = call_here("scripts/predict.py", name, *LINE, cwd=root)
    assert result.returncode == 2 and result.stderr == "error: no IMAGE is given; --help lists what there is\n"


def test_a_network_of_other_classes_is_named(root):
    dataset = create(root).build_dataset("val", Ranks())
    other = create(root, {"network.num_classes": 3})
    with pytest.raises(UserError, match="the network gives 2 classes, the settings say 3; --num_classes 2"):
        other.evaluate(Oracle(dataset.records.images), dataset)


def test_classes_come_from_the_data_and_must_fit(root):
    task = create(root)
    dataset = task.build_dataset("train", Ranks())
    assert task.class_names() == ("class 0", "class 1")
    assert dataset.class_names == CLASSES
    named = create_task(with_class_names(task.config, dataset.class_names))
    assert named.class_names() == named.config.data.class_names == CLASSES
    assert named.build_dataset("val", Ranks()).class_names == CLASSES
    with pytest.raises(UserError, match=r"has 2 categories, the network 3 classes; --num_classes 2 builds one"):
        create(root, {"network.num_classes": 3}).build_dataset("train", Ranks())
    with pytest.raises(UserError, match=r"has the categories cat, dog; data\.class_names says cat, cow"):
        create(root, {"data.class_names": ["cat", "cow"]}).build_dataset("val", Ranks())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network.anchors", [[[1, 2]] * 3] * 2, r"anchors: needs a row of 3 anchors for each of the strides"),
        ("network.anchors", [[[1, 0]] * 3] * 3, r"network\.anchors: 0\.0 is out of range"),
        ("network.output_stride", 8, r"output_stride: 8 is not 32"),
        ("augment.contrast", [1.5, 0.5], r"contrast: \[1\.5, 0\.5\] is not in rising order"),
        ("augment.expand_ratio", [2.0, 1.0], r"expand_ratio: \[2\.0, 1\.0\] is not in rising order"),
        ("inference.objectness", 1.5, r"inference\.objectness: 1\.5 is out of range: at least 0\.0 and at most 1\.0"),
        ("inference.score", -0.1, r"inference\.score: -0\.1 is out of range: at least 0\.0 and at most 1\.0"),
        ("inference.candidates", 0, r"inference\.candidates: 0 is out of range: at least 1 and at most 100000$"),
        ("inference.iou", 2, r"inference\.iou: 2\.0 is out of range: at least 0\.0 and at most 1\.0"),
        ("inference.detections", 0, r"inference\.detections: 0 is out of range: at least 1 and at most 100"),
        ("inference.detections", 101, r"inference\.detections: 101 is out of range: at least 1 and at most 100"),
        ("inference.drawn_score", 1.1, r"inference\.drawn_score: 1\.1 is out of range: at least 0\.0"),
    ],
)
def test_settings_out_of_range_are_named(key, value, message):
    with pytest.raises(UserError, match=message):
        create("anywhere", {key: value})
