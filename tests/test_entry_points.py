"""The commands, as a user types them: one small run from data to prediction, and mistakes."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest
from helpers import PROJECT, call, call_here, write_images
from PIL import Image

SMALL = ["data.image_size=33", "data.eval_resize=33", "train.batch_size=4", "evaluation.batch_size=4", "data.workers=2"]
SMALL += ["network.name=ghostnet_1x", "optimizer.name=sgd"]
CONFIG = str(PROJECT / "configs" / "classification" / "digits.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a dataset of bright and dark images: 9 to train, 5 to validate."""
    root = tmp_path_factory.mktemp("commands")
    counts = {"train": {"bright": 5, "dark": 4}, "val": {"bright": 3, "dark": 2}}
    write_images(root / "data", counts, {"bright": 160, "dark": 0})
    return root


@pytest.fixture(scope="module")
def trained(folder):
    """The same after `train.py`, run folder `run`."""
    arguments = ("--config", CONFIG, "--data_url", "data", "--num_classes", 2, "--output_dir", "run", "train.epochs=2")
    result = call("train.py", *arguments, *SMALL, "optimizer.rho=0.5", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def test_train_leaves_a_whole_run_folder(trained):
    folder, output = trained
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        "best.ckpt",
        "config.yaml",
        "curves.png",
        "evaluate.sh",
        "last.ckpt",
        "metrics.csv",
        "train.log",
    ]
    assert "epoch 2/2" in output
    assert "evaluate with: python eval.py --config run/config.yaml --checkpoint_path run/best.ckpt" in output
    rows = list(csv.DictReader((folder / "run" / "metrics.csv").open()))
    assert [(row["epoch"], row["step"], row["images"]) for row in rows] == [("1", "2", "5"), ("2", "4", "5")]
    log = (folder / "run" / "train.log").read_text().splitlines()
    assert [line.split()[0] for line in log] == ["warning:", "ghostnet_1x:", "global", "run", "epoch", "epoch"]
    assert log[0] == "warning: optimizer.rho has no effect with optimizer.name=sgd" and log[0] in output
    with Image.open(folder / "run" / "curves.png") as image:
        assert image.size == (1200, 360)


def test_evaluate_counts_every_image(trained):
    folder, _ = trained
    result = call("eval.py", "--checkpoint_path", "run/last.ckpt", "--output", "result.json", cwd=folder)
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    metrics = json.loads((folder / "result.json").read_text())
    assert re.fullmatch(r"result: \{'top_1_accuracy': .*\} ckpt= run/last.ckpt", last)
    assert metrics["images"] == 5
    rows = list(csv.DictReader((folder / "run" / "metrics.csv").open()))
    assert metrics["top_1_accuracy"] == pytest.approx(float(rows[-1]["top_1_accuracy"]))
    assert metrics["loss"] == pytest.approx(float(rows[-1]["loss"]), rel=1e-4)


def test_export_and_not_twice(trained):
    folder, _ = trained
    arguments = ("--checkpoint_path", "run/best.ckpt", "--file_name", "a net ü", "--file_format", "MINDIR")
    result = call("export.py", *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "exported a net ü.mindir" in result.stdout and "loaded back" in result.stdout
    result = call_here("export.py", *arguments, cwd=folder)
    assert (result.returncode, result.stderr) == (2, "error: a net ü.mindir: exists; --force overwrites it\n")


def test_predict_names_the_classes(trained):
    folder, _ = trained
    Image.new("RGBA", (50, 44), "white").convert("P").save(folder / "palette.png")
    result = call(
        "scripts/predict.py", "data/val/dark", "palette.png", "--checkpoint_path", "run/best.ckpt", cwd=folder
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(" dark\n") == result.stdout.count(" bright\n") == 3
    shares = [float(share) for share in re.findall(r"([\d.]+)%  (?:dark|bright)", result.stdout)]
    assert np.allclose(np.reshape(shares, (3, 2)).sum(1), 100, atol=0.02)


def mistakes(folder):
    """(script, arguments, what the error line must contain)."""
    data = ("--config", CONFIG, "--data_url", "data", "--num_classes", "2", "--output_dir", "wrong")
    return {
        "no data": ("train.py", ("--config", CONFIG, "--data_url", "nowhere"), "nowhere: no such folder"),
        "no config": ("train.py", ("--config", "x.yaml"), "x.yaml: No such file or directory"),
        "key": ("train.py", (*data, "train.epoch=3"), "unknown key 'train.epoch' (did you mean 'epochs'?)"),
        "classes": ("train.py", (*data[:4],), "has 2 classes, the network 10; --num_classes 2"),
        "device": (
            "train.py",
            (*data, "--device_target", "Ascend"),
            "device_target='Ascend' cannot be used: it is not on this machine",
        ),
        "no checkpoint": ("eval.py", ("--checkpoint_path", "no.ckpt"), "no.ckpt: no such file"),
        "misfit": (
            "eval.py",
            ("--checkpoint_path", "run/best.ckpt", "network.name=ghostnetv2_1x"),
            "missing (blocks.2.ghost1.short_conv.0.conv.weight",
        ),
        "resume what": (
            "train.py",
            ("--resume", "nowhere"),
            "nowhere: no such checkpoint; --resume takes a run's folder",
        ),
        "resume weights": ("train.py", ("--resume", "run/best.ckpt"), "best.ckpt: holds weights only; --pre_trained"),
        "resume another task": (
            "train.py",
            ("--resume", "run", "--config", str(PROJECT / "configs" / "detection" / "bccd.yaml"), "--data_url", "data"),
            "annotations/instances_train2017.json: No such file or directory",
        ),
        "settings where an image belongs": (
            "scripts/predict.py",
            ("data/val/dark", "--checkpoint_path", "run/best.ckpt", "data.imagesize=3"),
            "command line: unknown key 'data.imagesize' (did you mean 'image_size'?)",
        ),
        "resume another": (
            "train.py",
            ("--resume", "run", "optimizer.name=rmsprop"),
            "--resume goes on with the settings of the run: optimizer.name was 'sgd', is 'rmsprop'",
        ),
        "folder exists": ("train.py", (*data[:-1], "run", *SMALL), "run: exists and is not empty"),
        "no image": ("scripts/predict.py", ("no.png", "--checkpoint_path", "run/best.ckpt"), "no.png: no such file"),
    }


@pytest.mark.parametrize("name", mistakes(None))
def test_mistakes_end_in_one_line(trained, name):
    folder, _ = trained
    script, arguments, message = mistakes(folder)[name]
    if name == "device" and os.path.exists("/dev/davinci_manager"):
        pytest.skip("this machine has an Ascend device")
    in_process = name not in ("misfit", "resume another", "no image")  # one of each script as it is
    result = (call_here if in_process else call)(script, *arguments, cwd=folder)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and result.stderr.startswith("error: "), result.stderr
    assert result.stderr.count("\n") == 1


def test_resuming_a_whole_run_changes_nothing(trained):
    folder, _ = trained
    before = {path.name: path.read_bytes() for path in (folder / "run").iterdir() if path.suffix in (".ckpt", ".csv")}
    result = call("train.py", "--resume", "run", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "resumed from run/last.ckpt: epoch 2, batch 0" in result.stdout and "warning" not in result.stdout
    assert before == {name: (folder / "run" / name).read_bytes() for name in before}


def test_a_loss_that_explodes_is_named(folder):
    arguments = ("--config", CONFIG, "--data_url", "data", "--num_classes", 2, "--output_dir", "exploded")
    settings = ("schedule.learning_rate=1e30", "schedule.warmup_epochs=0", "train.epochs=5")
    result = call("tests/training/tiny_train.py", *arguments, *SMALL, *settings, cwd=folder)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert re.match(r"error: the loss is (nan|inf) at batch \d of epoch \d; ", last), result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_image_in_the_middle_of_training_is_named(folder):
    shutil.copytree(folder / "data", folder / "broken")
    image = folder / "broken" / "train" / "dark" / "2.png"
    image.write_bytes(image.read_bytes()[:500])
    arguments = ("--config", CONFIG, "--data_url", "broken", "--num_classes", 2, "--output_dir", "broken_run")
    result = call("train.py", *arguments, *SMALL, cwd=folder)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: broken/train/dark/2.png: is not a whole image: "), result.stderr
    assert "Traceback" not in result.stderr
