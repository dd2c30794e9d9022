"""A run that is killed and resumed ends with the same weights, bit for bit, as one that was not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import PROJECT
from PIL import Image

from src.checkpoint import EMA_PREFIX, STATE_PREFIX, read_checkpoint
from src.command_line import INTERRUPTED

SETTINGS = [
    "network.name=ghostnet_1x",
    "network.dropout=0.2",
    "data.image_size=33",
    "data.eval_resize=33",
    "data.workers=2",
    "augment.rand_augment=rand-m9-mstd0.5",
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
}
DEADLINE = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """34 pictures to train, which is 8 batches of 4, and 5 to validate."""
    root = tmp_path_factory.mktemp("resume")
    rng = np.random.default_rng(0)
    for split, count in (("train", 34), ("val", 5)):
        for number in range(count):
            path = root / "data" / split / ("bright", "dark")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            level = (128, 0)[number % 2]
            Image.fromarray(rng.integers(level, level + 128, (36, 40, 3), np.uint8)).save(path)
    return root


def start(folder, recipe, *arguments):
    config = PROJECT / "configs" / "classification" / "digits.yaml"
    fixed = ["--config", config, "--data_url", "data", "--num_classes", "2"]
    command = [sys.executable, PROJECT / "train.py", *fixed, *arguments, *SETTINGS, *RECIPES[recipe]]
    return subprocess.Popen(
        [str(part) for part in command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output + errors
    return output


def kill_when(process, condition, number=signal.SIGKILL, returncode=-signal.SIGKILL):
    """Send a signal as soon as `condition` holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == returncode


def stop_when(process, condition):
    """Ctrl-C as soon as `condition` holds."""
    kill_when(process, condition, signal.SIGINT, INTERRUPTED)


def logged(run, text):
    return lambda: (run / "train.log").exists() and text in (run / "train.log").read_text()


def writing(run):
    return lambda: any(run.glob(".last.ckpt*"))


def content(run):
    """Arrays and progress of a run's last checkpoint, without what a clock has measured."""
    arrays, notes = read_checkpoint(run / "last.ckpt")
    progress = json.loads(notes["progress"])
    for row in progress["rows"]:
        row.pop("seconds")
        row.pop("images_per_second", None)
    return arrays, progress


@pytest.mark.parametrize(
    "recipe", ["rmsprop", pytest.param("adamw", marks=pytest.mark.slow), pytest.param("sgd", marks=pytest.mark.slow)]
)
def test_killed_three_times_ends_like_a_run_that_was_not(folder, recipe):
    whole, broken = folder / f"{recipe}_whole", folder / f"{recipe}_broken"
    finish(start(folder, recipe, "--output_dir", whole))
    resume = ("--output_dir", broken, "--resume", "auto")
    kill_when(start(folder, recipe, *resume), logged(broken, "epoch 1/4  batch 6/8"))
    first = read_checkpoint(broken / "last.ckpt")
    assert json.loads(first[1]["progress"])["step"] in (4, 6)

    process = start(folder, recipe, *resume)
    stop_when(process, logged(broken, "epoch 2/4  batch 3/8"))
    progress = json.loads(read_checkpoint(broken / "last.ckpt")[1]["progress"])
    assert progress["epoch"] == 1 and progress["step"] % (2 if recipe == "rmsprop" else 1) == 0  # at an update
    assert len(progress["losses"]) == progress["step"]

    process = start(folder, recipe, *resume)
    kill_when(process, lambda: logged(broken, "epoch 3/4  batch 3/8")() and writing(broken)())
    assert any(name.startswith(".last.ckpt") for name in os.listdir(broken))
    process = start(folder, recipe, *resume)
    kill_when(process, logged(broken, "epoch 4/4  batch 3/8"))
    output = finish(start(folder, recipe, *resume))
    assert "resumed from " in output

    (expected, progress), (arrays, resumed_progress) = content(whole), content(broken)
    assert expected.keys() == arrays.keys()
    assert any(name.startswith(EMA_PREFIX) for name in arrays) == ("train.ema_decay=0.9" in RECIPES[recipe])
    assert STATE_PREFIX + "dropout_0" in arrays
    different = [name for name, value in expected.items() if not np.array_equal(value, arrays[name])]
    assert not different
    assert progress == resumed_progress
    names = [sorted(path.name for path in run.iterdir()) for run in (whole, broken)]
    assert names[0] == names[1]
    assert len([name for name in names[0] if name.startswith("epoch_")]) == 2
    best = [read_checkpoint(run / "best.ckpt")[0] for run in (whole, broken)]
    assert all(np.array_equal(value, best[1][name]) for name, value in best[0].items())
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (whole, broken)]
    assert [row["train_loss"] for row in rows[0]] == [row["train_loss"] for row in rows[1]]
    assert len(rows[0]) == 4
