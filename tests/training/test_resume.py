"""A run that is killed and resumed ends with the same weights, bit for bit, as one that was not.

With a tiny network all that a training step can have is on at once; the real network has a recipe at a time.
"""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from helpers import PROJECT, command, write_images

from src.interrupt import INTERRUPTED
from src.networks import create_network
from src.weights.files import EMA_PREFIX, STATE_PREFIX, read_checkpoint, save_weights

SETTINGS = [
    "network.name=ghostnet_1x",
    "network.dropout=0.2",
    "data.image_size=33",
    "data.eval_resize=33",
    "data.workers=2",
    "augment.policy=rand-m9-mstd0.5",
    "augment.erase_probability=0.5",
    "train.batch_size=4",
    "train.epochs=4",
    "train.save_every=2",
    "train.log_every=3",
    "train.keep_best=2",
    "evaluation.batch_size=4",
    "schedule.noise=[0.4,0.9]",
    "schedule.warmup_epochs=1",
]
HAS_TENSORBOARD = importlib.util.find_spec("tensorboardX") is not None
RECIPES = {
    "rmsprop": [
        "optimizer.name=rmsprop",
        "optimizer.epsilon=0.001",
        "train.ema_decay=0.9",
        "train.accumulation_steps=2",
        "precision.loss_scaling=dynamic",
    ],
    "adamw": ["optimizer.name=adamw", "optimizer.clip_norm=1.0"],
    "sgd": ["optimizer.name=sgd", "train.ema_decay=0.9", "precision.amp=O2"],
    "everything": [
        "optimizer.name=adamw",
        "optimizer.decay_all=true",
        "optimizer.backbone_rate=0.5",
        "optimizer.layer_decay=0.9",
        "train.ema_decay=0.9",
        "train.accumulation_steps=2",
        "train.repeated_augmentation=2",
        "train.best_metric=loss",
        "train.patience=100",
        *["train.summary=true"] * HAS_TENSORBOARD,
        "train.profile=2",
        "precision.loss_scaling=dynamic",
        "augment.policy=v0",
        "augment.vertical_flip=0.5",
        "augment.grayscale=0.2",
        "augment.gaussian_blur=0.2",
        "augment.mixup=0.8",
        "augment.cutmix=1.0",
        "augment.mixup_off_epoch=3",
        "loss.name=binary_cross_entropy",
        "loss.class_weights=balanced",
        "evaluation.flip=true",
        "evaluation.crop_mode=border",
    ],
}
RECIPES["everything else"] = [  # what the tiny network has no parts for
    *RECIPES["everything"],
    "network.drop_path=0.2",
    "train.freeze=stem",
    "loss.teacher=teacher.ckpt",
]
DEADLINE = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """34 images to train, which is 8 batches of 4, and 5 to validate."""
    root = tmp_path_factory.mktemp("resume")
    counts = {"train": {"bright": 17, "dark": 17}, "val": {"bright": 3, "dark": 2}}
    write_images(root / "data", counts, {"bright": 160, "dark": 0})
    save_weights(create_network("ghostnetv2_1x", 2), root / "teacher.ckpt")
    return root


def start(folder, script, recipe, *arguments):
    config = PROJECT / "configs" / "classification" / "digits.yaml"
    fixed = ("--config", config, "--data_url", "data", "--num_classes", 2)
    line = command(script, *fixed, *arguments, *SETTINGS, *RECIPES[recipe])
    return subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output + errors
    return output


def signal_when(condition, process, number):
    """Send a signal as soon as `condition` holds; returns exit status and messages."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE)
    return process.returncode, errors


def kill_when(condition, process):
    assert signal_when(condition, process, signal.SIGKILL)[0] == -signal.SIGKILL


def stop_when(condition, process, run):
    """Ctrl-C: the run ends with all saved and one line of advice."""
    returncode, errors = signal_when(condition, process, signal.SIGINT)
    assert returncode == INTERRUPTED == 130
    assert "Traceback" not in errors
    assert f"interrupted; --resume {run} goes on from {run / 'last.ckpt'}\n" in errors
    assert not any(name.startswith(".") for name in os.listdir(run))


def logged(run, text):
    return lambda: (run / "train.log").exists() and text in (run / "train.log").read_text()


def writing(run):
    return lambda: any(run.glob(".last.ckpt*"))


def progress_of(run):
    return json.loads(read_checkpoint(run / "last.ckpt")[1]["progress"])


def content(run):
    """Arrays and progress of a run's last checkpoint, without what a clock has measured."""
    arrays, progress = read_checkpoint(run / "last.ckpt")[0], progress_of(run)
    for row in progress["rows"]:
        row.pop("seconds")
        row.pop("images_per_second", None)
    return arrays, progress


def break_four_times(broken, resume):
    """Kill, stop, kill in the middle of writing, and kill a run; `resume` starts it again."""
    kill_when(logged(broken, "epoch 1/4  batch 6/8"), resume())
    assert progress_of(broken)["batch"] in (4, 6)

    stop_when(logged(broken, "epoch 2/4  batch 3/8"), resume(), broken)
    progress = progress_of(broken)
    assert progress["epoch"] == 1 and len(progress["losses"]) == progress["batch"]

    kill_when(lambda: logged(broken, "epoch 3/4  batch 3/8")() and writing(broken)(), resume())
    assert any(name.startswith(".last.ckpt") for name in os.listdir(broken))
    kill_when(logged(broken, "epoch 4/4  batch 3/8"), resume())


def same_arrays(expected, arrays):
    different = [name for name, value in expected.items() if not np.array_equal(value, arrays[name])]
    return expected.keys() == arrays.keys() and not different


def check_same(whole, broken):
    """Compare all that two runs have left."""
    (expected, progress), (arrays, resumed_progress) = content(whole), content(broken)
    assert same_arrays(expected, arrays)
    assert progress == resumed_progress
    assert same_arrays(*(read_checkpoint(run / "best.ckpt")[0] for run in (whole, broken)))
    names = [sorted(path.name for path in run.iterdir()) for run in (whole, broken)]
    assert names[0] == names[1]
    assert len([name for name in names[0] if name.startswith("epoch_")]) == 2
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (whole, broken)]
    assert [row["train_loss"] for row in rows[0]] == [row["train_loss"] for row in rows[1]]
    assert len(rows[0]) == 4


@pytest.mark.parametrize(
    ("script", "recipe"),
    [
        pytest.param("tests/training/tiny_train.py", "everything", marks=pytest.mark.long),
        pytest.param("tests/training/tiny_train.py", "rmsprop", marks=pytest.mark.slow),
        *(pytest.param("train.py", recipe, marks=pytest.mark.slow) for recipe in RECIPES),
    ],
)
def test_a_broken_run_ends_like_a_whole_one(folder, script, recipe):
    name = f"{script.split('/')[-1]}_{recipe}"
    whole, broken = folder / f"{name}_whole", folder / f"{name}_broken"

    def resume():
        return start(folder, script, recipe, "--output_dir", broken, "--resume", "auto")

    finish(start(folder, script, recipe, "--output_dir", whole))
    break_four_times(broken, resume)
    assert "resumed from " in finish(resume())
    check_same(whole, broken)
    arrays, _ = read_checkpoint(whole / "last.ckpt")
    assert any(name.startswith(EMA_PREFIX) for name in arrays) == ("train.ema_decay=0.9" in RECIPES[recipe])
    assert STATE_PREFIX + "dropout_0" in arrays
