"""Detection with real networks: learns images by heart, and goes from data to drawings through the commands."""

import csv
import json
import re

import numpy as np
import pytest
from detection.coco_files import CONFIG
from helpers import call
from PIL import Image

from src.config import load_config
from src.ranks import Ranks
from src.runtime import init_runtime
from src.tasks import SCHEMAS, create_task
from src.training.run import train
from src.training.run_folder import RunFolder
from src.training.setup import build_run

SMALL = {
    "network.num_classes": 10,
    "network.anchors": [[[48, 48], [40, 40], [34, 34]], [[30, 30], [27, 27], [24, 24]], [[21, 21], [18, 18], [15, 15]]],
    "data.image_size": 96,
    "data.repeat": 1,
    "train.batch_size": 4,
    "train.ema_decay": 0.0,
    "evaluation.batch_size": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the digits on images in COCO's layout."""
    root = tmp_path_factory.mktemp("detection")
    result = call("scripts/make_demo_data.py", "digits", "--task", "detection", cwd=root)
    assert result.returncode == 0, result.stderr
    return root


def keep_images(path, count):
    """Leave the first `count` images with boxes in an annotation file."""
    content = json.loads(path.read_text())
    used = {annotation["image_id"] for annotation in content["annotations"]}
    content["images"] = [image for image in content["images"] if image["id"] in used][:count]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    path.write_text(json.dumps(content))
    return content


def flags(settings):
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


@pytest.mark.slow
def test_it_learns_four_images_by_heart(folder, tmp_path):
    root = tmp_path / "four"
    (root / "annotations").mkdir(parents=True)
    for name in ("train2017", "val2017"):  # the same four in both
        (root / name).symlink_to(folder / "digits" / "train2017")
        path = root / "annotations" / f"instances_{name}.json"
        path.write_text((folder / "digits" / "annotations" / "instances_train2017.json").read_text())
        keep_images(path, 4)
    plain = {"augment.brightness": 0, "augment.contrast": [1, 1], "augment.saturation": [1, 1], "augment.hue": 0}
    plain.update({"augment.expand_probability": 0, "augment.crop_min_ious": [], "augment.flip": 0})
    settings = {**SMALL, **plain, "data.path": str(root), "data.repeat": 60, "train.epochs": 4}
    settings.update({"train.evaluate_every": 4, "schedule.warmup_steps": 10, "schedule.learning_rate": 2e-3})
    config = load_config(CONFIG, SCHEMAS, [(key, value, "test") for key, value in settings.items()])
    runtime, task = init_runtime("CPU", 1, graph_mode=True), create_task(config)
    train_data, val_data = (task.build_dataset(split, Ranks()) for split in ("train", "val"))
    run = build_run(task, config, runtime, task.build_network(), train_data)
    folder = RunFolder(tmp_path / "run")
    folder.make()
    assert train(run, folder, val_data)
    result = task.evaluate(run.evaluated, val_data)
    assert result["AP50"] > 0.95, result


@pytest.mark.slow
def test_from_data_to_drawings(folder):
    """Train, evaluate, export, evaluate the file, predict with both: the same numbers."""
    for name, count in (("train2017", 12), ("val2017", 5)):
        keep_images(folder / "digits" / "annotations" / f"instances_{name}.json", count)
    arguments = ("--config", CONFIG, "--data_url", "digits", "--output_dir", "run", "train.epochs=2")
    result = call("train.py", *arguments, "schedule.warmup_steps=0", *flags(SMALL), cwd=folder)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((folder / "run" / "metrics.csv").open()))
    assert [row["images"] for row in rows] == ["5", "5"] and "AP_small" in rows[0]

    result = call("export.py", "--checkpoint_path", "run/last.ckpt", "--file_name", "net", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "outputs: boxes, objectness, class_scores" in result.stdout and "loaded back" in result.stdout

    metrics = {}
    for file in ("run/last.ckpt", "net.mindir"):
        more = ("--output", "result.json", "--output_dir", "details", "inference.objectness=0", "inference.score=0")
        result = call("eval.py", "--checkpoint_path", file, *more, cwd=folder)
        assert result.returncode == 0, result.stderr
        assert re.search(r"result: \{'AP': .*'images': 5, ", result.stdout)
        metrics[file] = json.loads((folder / "result.json").read_text())
        metrics[file].pop("images_per_second")
        assert len(json.loads((folder / "details" / "detections.json").read_text())) == 5 * 100
    assert metrics["net.mindir"] == pytest.approx(metrics["run/last.ckpt"], abs=1e-3)

    drawn = {}
    for file in ("run/last.ckpt", "net.mindir"):
        more = ("--output_dir", "drawn", "inference.drawn_score=0", "inference.score=0")
        result = call("scripts/predict.py", "digits/val2017/0002.png", "--checkpoint_path", file, *more, cwd=folder)
        assert result.returncode == 0, result.stderr
        assert re.search(r"^digits/val2017/0002.png: \d+ detected$", result.stdout, re.MULTILINE)
        drawn[file] = np.asarray(Image.open(folder / "drawn" / "0002.png")).astype(int)
    assert drawn["net.mindir"].shape == (96, 128, 3)
    assert (drawn["net.mindir"] != drawn["run/last.ckpt"]).mean() < 0.05


@pytest.mark.slow
def test_mistakes_in_the_data_end_in_one_line(folder):
    path = folder / "digits" / "annotations" / "instances_val2017.json"
    whole = path.read_text()
    path.write_text(whole[:-20])
    result = call("train.py", "--config", CONFIG, "--data_url", "digits", *flags(SMALL), cwd=folder)
    path.write_text(whole)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert re.match(r"error: digits/annotations/instances_val2017.json:1: is not valid JSON: ", result.stderr)
