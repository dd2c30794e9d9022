"""Segmentation as a task: prediction, drawings, and, slow, the commands from data to prediction and an overfit."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from helpers import PROJECT, call, shared_data
from mindspore import Tensor
from PIL import Image

from src.config import load_config
from src.drawing import palette
from src.inference.prediction import predict_images
from src.layers.arrays import ArrayNetwork
from src.ranks import Ranks
from src.segmentation.drawing import OPACITY, draw_overlay
from src.tasks import SCHEMAS, create_task

CONFIGS = PROJECT / "configs" / "segmentation"
SETTINGS = [
    ("network.num_classes", 3, "test"),
    ("data.class_names", ["left", "right", "nowhere"], "test"),
    ("data.base_size", [96, 64], "test"),
]


class LeftAndRight:
    """Stands in for a network: class 0 in the left half, class 1 in the right one."""

    def set_train(self, mode=True):
        return self

    def __call__(self, images):
        logits = np.zeros((1, 3, 8, 12), np.float32)
        logits[:, 0, :, :6] = logits[:, 1, :, 6:] = 1
        return Tensor(logits)


def task():
    return create_task(load_config(CONFIGS / "camvid.yaml", SCHEMAS, SETTINGS))


@pytest.fixture
def images(tmp_path):
    """Images of the same name in two folders, and one named as the drawing of the second would be."""
    paths = [tmp_path / name for name in ("one/a.jpg", "two/a_2.jpg", "three/a.jpg")]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (90, 60), "gray").save(path)
    return paths


def test_prediction_names_the_classes_and_draws_each_image(images, tmp_path):
    predictor = task().build_predictor(ArrayNetwork(LeftAndRight()))
    predictions = list(predict_images(predictor, images, tmp_path / "drawn", threads=2))
    lines = [line for prediction in predictions for line in prediction.lines]
    assert sorted(predictions[0].findings, key=str) == [
        {"class": name, "index": index, "share": 0.5} for index, name in enumerate(("left", "right"))
    ]
    assert lines[::4] == list(map(str, images))
    assert sorted(lines[1:3]) == ["   50.00%  left", "   50.00%  right"]
    names = ["a.png", "a_2.png", "a_3.png"]
    assert lines[3::4] == [f"  drawn: {tmp_path / 'drawn' / name}" for name in names]
    assert [path.name for path in sorted((tmp_path / "drawn").iterdir())] == names
    drawing = np.asarray(Image.open(tmp_path / "drawn" / "a.png")).astype(float)
    assert drawing.shape[0] == 60 and drawing.shape[1] > 90
    wanted = 128 * (1 - OPACITY) + palette(3) * OPACITY
    assert np.abs(drawing[30, 10] - wanted[0]).max() < 2
    assert np.abs(drawing[30, 80] - wanted[1]).max() < 2


def test_a_long_legend_makes_the_drawing_higher():
    classes = np.arange(40, dtype=np.uint8).reshape(4, 10).repeat(8, 0).repeat(8, 1)
    image = np.zeros((*classes.shape, 3), np.uint8)
    drawing = draw_overlay(image, classes, range(40), [f"class {index}" for index in range(40)])
    assert drawing.height >= 40 * 20 and drawing.width > 80


def test_evaluation_counts_pixels_at_the_masks_size(tmp_path):
    root = tmp_path / "data"
    for number, width in enumerate((90, 120)):
        mask = np.ones((60, width), np.uint8)
        mask[:, width // 2 :] = 2
        mask[:30, :15] = number * 3  # of no class in the first image, wrong in the second
        for kind, content in (("images", np.zeros((60, width, 3), np.uint8)), ("annotations", mask)):
            path = root / kind / "validation" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(path)
    built = create_task(load_config(CONFIGS / "camvid.yaml", SCHEMAS, [*SETTINGS, ("data.path", str(root), "test")]))
    result = built.evaluate(LeftAndRight(), built.build_dataset("val", Ranks()), tmp_path / "out")
    left, right, wrong = 60 * 105 - 2 * 30 * 15, 60 * 105, 30 * 15
    ious = (left / (left + wrong), 1, 0)
    assert result == {
        "mean_iou": pytest.approx(np.mean(ious)),
        "pixel_accuracy": pytest.approx((left + right) / (left + right + wrong)),
        "mean_accuracy": pytest.approx(2 / 3),
        "images": 2,
    }
    rows = list(csv.DictReader((tmp_path / "out" / "per_class.csv").open()))
    assert [float(row["iou"]) for row in rows] == pytest.approx(ious)


def test_ade20k_recipes_name_150_classes_and_160000_steps():
    for name, variant in (("ghostnetv2_1x", "ghostnetv2_1x"), ("ghostnet_1x", "ghostnet_1x")):
        config = load_config(CONFIGS / f"deeplabv3_{name}_ade20k.yaml", SCHEMAS)
        assert config.network.name == variant and config.network.output_stride == 8
        names = config.data.class_names
        assert len(names) == len(set(names)) == 150 and (names[0], names[-1]) == ("wall", "flag")
        updates = 20210 // 8 // config.train.batch_size
        assert 160_000 <= updates * config.train.epochs < 160_000 + updates


def output_of(script, *arguments, cwd):
    result = call(script, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_commands_from_data_to_prediction(tmp_path):
    """One short epoch on canvases of digits, then the checkpoint and the exported file agree."""
    output_of("scripts/make_demo_data.py", "data", "--task", "segmentation", cwd=tmp_path)
    config = ("--config", CONFIGS / "digits.yaml", "--data_url", "data", "--output_dir", "run")
    output = output_of(
        "train.py", *config, "train.epochs=1", "schedule.warmup_epochs=0", "data.crop_size=[64,64]", cwd=tmp_path
    )
    assert re.search(r"epoch 1/1 .* mean_iou [\d.]+ .*\(best\)", output)
    details = ("--output", "result.json", "--output_dir", "details")
    output_of("eval.py", "--checkpoint_path", "run/best.ckpt", *details, cwd=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["images"] == 30 and 0 < result["pixel_accuracy"] < 1
    assert len((tmp_path / "details" / "per_class.csv").read_text().splitlines()) == 11

    output = output_of("export.py", "--checkpoint_path", "run/best.ckpt", "--file_name", "net", cwd=tmp_path)
    assert "inputs: image (1, 3, 180, 240) float32; outputs: logits" in output
    output_of("eval.py", "--checkpoint_path", "net.mindir", "--output", "exported.json", cwd=tmp_path)
    exported = json.loads((tmp_path / "exported.json").read_text())
    assert exported == {key: pytest.approx(value, abs=1e-3) for key, value in result.items()}

    scales = ("evaluation.scales=[0.5,1.0]", "evaluation.flip=true")
    images = [tmp_path / "data" / "images" / "validation" / f"{number:03d}.png" for number in (0, 1)]
    paths = ("--output_dir", "drawn", "--checkpoint_path")
    output = output_of("scripts/predict.py", *images, *paths, "run/best.ckpt", *scales, cwd=tmp_path)
    assert output.count("drawn: drawn/") == 2
    assert Image.open(tmp_path / "drawn" / "001.png").height == 120


@pytest.mark.slow
def test_two_street_scenes_are_learnt_by_heart(tmp_path):
    camvid, root = shared_data("camvid"), tmp_path / "data"
    for kind, ending in (("images", ".jpg"), ("annotations", ".png")):
        for file in sorted((camvid / kind / "training").glob(f"*{ending}"))[:100:50]:
            for split in ("training", "validation"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, root / kind / split)
    settings = ("data.base_size=[256,192]", "data.crop_size=[192,256]", "augment.ratio=[1,1]", "augment.flip=0")
    length = ("train.batch_size=2", "train.epochs=120", "train.evaluate_every=120")
    arguments = ("--config", CONFIGS / "camvid.yaml", "--data_url", root, "--output_dir", "run")
    output_of("train.py", *arguments, *settings, *length, "augment.photometric=false", cwd=tmp_path)
    row = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))[-1]
    assert float(row["pixel_accuracy"]) > 0.9
