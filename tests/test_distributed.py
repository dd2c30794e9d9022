"""Data-parallel evaluation: two processes on the CPU count what one does."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT
from PIL import Image

from src.checkpoint import read_checkpoint, save_weights
from src.ghostnetv2 import create_network
from src.runtime import sum_over_ranks

OVERRIDES = ["data.image_size=33", "data.eval_resize=33", "evaluation.batch_size=3", "data.workers=1"]
SUMS = """
import numpy as np
from src.runtime import init_runtime, sum_over_ranks
runtime = init_runtime("CPU")
whole = np.array([[runtime.rank + 1, 2**55 + 1, -5]])
real = np.array([1 / 3, 1e-9 * runtime.rank])
np.savez(f"sums_{runtime.rank}.npz", whole=sum_over_ranks(whole), real=sum_over_ranks(real))
"""


def msrun(*command, cwd):
    """Run a Python script on two CPU processes."""
    launcher = shutil.which("msrun", path=str(Path(sys.executable).parent)) or shutil.which("msrun")
    if launcher is None:
        pytest.skip("msrun is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--worker_num=2", "--local_worker_num=2", f"--master_port={port}", "--log_dir=logs", "--join=True"]
    # msrun starts the `python` of the search path
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [launcher, *arguments, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    logs = "".join(path.read_text() for path in (Path(cwd) / "logs").glob("worker_*.log"))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    return logs


def test_one_process_keeps_its_values():
    assert sum_over_ranks(np.array([3])).tolist() == [3]


def test_sums_are_exact(tmp_path):
    (tmp_path / "sums.py").write_text(f"import sys\nsys.path.insert(0, {str(PROJECT)!r})\n{SUMS}")
    msrun("sums.py", cwd=tmp_path)
    for rank in (0, 1):
        sums = np.load(tmp_path / f"sums_{rank}.npz")
        assert sums["whole"].tolist() == [[3, 2**56 + 2, -10]]
        assert np.abs(sums["real"] - [2 / 3, 1e-9]).max() < 1e-13


def test_two_processes_evaluate_like_one(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(11):  # divides by neither the batch nor the processes
        path = tmp_path / "data" / "val" / f"class {number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, 40, 3), np.uint8)).save(path)
    save_weights(create_network("ghostnetv2_1x", num_classes=3), tmp_path / "a.ckpt")
    config = PROJECT / "configs" / "classification" / "digits.yaml"
    command = [PROJECT / "eval.py", "--config", config, "--data_url", "data", "--num_classes", 3]
    command += ["--checkpoint_path", "a.ckpt"]

    one = [*command, "--output", "one.json", "--output_dir", "one", *OVERRIDES]
    result = subprocess.run([sys.executable, *map(str, one)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    logs = msrun(*command, "--output", "two.json", "--output_dir", "two", *OVERRIDES, cwd=tmp_path)
    assert logs.count("result: {") == 1

    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["images"] == two["images"] == 11
    for key in ("top_1_accuracy", "top_5_accuracy", "loss"):
        assert one[key] == pytest.approx(two[key], abs=1e-6)
    rows = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("one", "two")]
    assert [row.split(",")[:7] for row in rows[0]] == [row.split(",")[:7] for row in rows[1]]
    assert len(rows[0]) == 12
    assert (tmp_path / "one" / "per_class.csv").read_text() == (tmp_path / "two" / "per_class.csv").read_text()


@pytest.mark.parametrize("mode", ["frozen", "sync"])
def test_two_processes_follow_one_with_the_whole_batch(tmp_path, mode):
    """Losses, weights and moving averages, with dropout; `sync`: batch normalisation over both processes' batches."""
    script = [PROJECT / "tests" / "distributed_steps.py", PROJECT]
    command = [sys.executable, *map(str, script), "one", mode]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    msrun(*script, "two", mode, cwd=tmp_path)
    relative, absolute = (0, 1e-4) if mode == "frozen" else (1e-2, 2e-3)  # batch statistics amplify rounding
    one, first, second = (np.load(tmp_path / name) for name in ("one_0.npz", "two_0.npz", "two_1.npz"))
    assert np.ptp(one["losses"]) > 0.01
    assert np.abs(one["losses"] - first["losses"]).max() < 1e-4
    for name in one.files:
        assert np.array_equal(first[name], second[name]), name
        assert np.allclose(first[name], one[name], rtol=relative, atol=absolute), name


def training_command(folder):
    """`train.py` on a small data set that it makes in `folder`: 19 pictures to train, 5 to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 19), ("val", 5)):
        for number in range(count):
            path = folder / "data" / split / ("bright", "dark")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (36, 40, 3), np.uint8)).save(path)
    config = PROJECT / "configs" / "classification" / "digits.yaml"
    command = [PROJECT / "train.py", "--config", config, "--data_url", "data", "--num_classes", 2, *OVERRIDES]
    command += ["network.name=ghostnet_1x", "network.dropout=0.2", "train.batch_size=4", "train.ema_decay=0.5"]
    return [*command, "schedule.name=constant", "optimizer.name=rmsprop"]


def test_training_on_two_processes(tmp_path):
    """One run folder, and all validation pictures counted."""
    logs = msrun(*training_command(tmp_path), "--output_dir", "whole", "train.epochs=2", cwd=tmp_path)
    assert logs.count("global batch 8: 2 x 4 on CPU") == logs.count("epoch 2/2") == logs.count("evaluate with") == 1
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("runs")]
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").open()))
    assert [(row["step"], row["images"]) for row in rows] == [("2", "5"), ("4", "5")]


@pytest.mark.slow
def test_a_resumed_run_on_two_processes_ends_like_a_whole_one(tmp_path):
    command = training_command(tmp_path)
    msrun(*command, "--output_dir", "whole", "train.epochs=2", cwd=tmp_path)
    msrun(*command, "--output_dir", "parts", "train.epochs=1", cwd=tmp_path)
    logs = msrun(*command, "--output_dir", "parts", "--resume", "auto", "train.epochs=2", cwd=tmp_path)
    assert "train.epochs: 1 -> 2" in logs and logs.count("resumed from parts/last.ckpt: epoch 1, batch 0") == 1
    whole, parts = (read_checkpoint(tmp_path / name / "last.ckpt")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(value, parts[name]) for name, value in whole.items())
