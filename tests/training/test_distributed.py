"""Data-parallel runs: two processes on the CPU compute, train and evaluate like one."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import PROJECT, call, command, write_images

from src.ghostnetv2 import create_network
from src.weights.files import read_checkpoint, save_weights

STEPS = "tests/training/distributed_steps.py"
CONFIG = PROJECT / "configs" / "classification" / "digits.yaml"
pytestmark = pytest.mark.long
OVERRIDES = ["network.name=ghostnet_1x", "data.image_size=33", "data.eval_resize=33", "data.workers=1"]


def find_port():
    """Find a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def search_path():
    """The search path on which msrun finds this Python under the name `python`."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def start_msrun(script, *arguments, cwd):
    """Start one of the project's scripts on two CPU processes, whose output goes to `logs`."""
    launcher = shutil.which("msrun", path=str(Path(sys.executable).parent)) or shutil.which("msrun")
    if launcher is None:
        pytest.skip("msrun is not installed")
    port = find_port()
    options = ["--worker_num=2", "--local_worker_num=2", f"--master_port={port}", "--log_dir=logs", "--join=True"]
    line = [launcher, *options, *command(script, *arguments)[1:]]
    environment = {**os.environ, "PATH": search_path()}
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_logs(cwd):
    """What the processes of a run have printed."""
    return "".join(path.read_text() for path in (Path(cwd) / "logs").glob("worker_*.log"))


def msrun(script, *arguments, cwd):
    """Run one of the project's scripts on two CPU processes; returns what they have printed."""
    process = start_msrun(script, *arguments, cwd=cwd)
    output, _ = process.communicate(timeout=300)
    logs = read_logs(cwd)
    assert process.returncode == 0, output + logs
    return logs


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """What `distributed_steps.py` has written on one process, and on each of two."""
    folder = tmp_path_factory.mktemp("steps")
    result = call(STEPS, "one", cwd=folder)
    assert result.returncode == 0, result.stderr
    msrun(STEPS, "two", cwd=folder)
    return [dict(np.load(folder / name)) for name in ("one_0.npz", "two_0.npz", "two_1.npz")]


def test_one_process_keeps_its_values(steps):
    assert steps[0]["whole"].tolist() == [[1, 2**55 + 1, -5]]
    assert steps[0]["mean"].tolist() == [1, 2]
    assert steps[0]["agree"].all()


def test_sums_are_exact(steps):
    for sums in steps[1:]:
        assert sums["whole"].tolist() == [[3, 2**56 + 2, -10]]
        assert np.abs(sums["real"] - [2 / 3, 1e-9]).max() < 1e-13
        assert np.allclose(sums["mean"], [1.0, 2.5])
        assert sums["agree"].tolist() == [True, False]


@pytest.mark.parametrize("mode", ["frozen", "sync", "overflow"])
def test_two_processes_follow_one_with_the_whole_batch(steps, mode):
    """Losses, weights and moving averages, with dropout.

    `sync`: batch normalisation over both processes' batches; `overflow`: all skip the update that one has to skip.
    """
    one, first, second = ({name: run[name] for name in run if name.startswith(mode)} for run in steps)
    assert np.ptp(one[f"{mode} losses"]) > 0.01 and one[f"{mode} skipped"] == (mode == "overflow")
    assert np.abs(one[f"{mode} losses"] - first[f"{mode} losses"]).max() < 1e-5
    for name, value in one.items():
        assert np.array_equal(first[name], second[name]), name
        assert np.allclose(first[name], value, rtol=0, atol=1e-5), name


def test_two_processes_evaluate_like_one(tmp_path):
    # 11 images divide by neither the batch nor the processes
    write_images(tmp_path / "data", {"val": {"class 0": 4, "class 1": 4, "class 2": 3}})
    save_weights(create_network("ghostnet_1x", num_classes=3), tmp_path / "a.ckpt")
    arguments = ["eval.py", "--config", CONFIG, "--data_url", "data", "--num_classes", 3]
    arguments += ["--checkpoint_path", "a.ckpt", *OVERRIDES, "evaluation.batch_size=3"]
    result = call(*arguments, "--output", "one.json", "--output_dir", "one", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    logs = msrun(*arguments, "--output", "two.json", "--output_dir", "two", cwd=tmp_path)
    assert logs.count("result: {") == 1

    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["images"] == two["images"] == 11
    for key in ("top_1_accuracy", "top_5_accuracy", "loss"):
        assert one[key] == pytest.approx(two[key], abs=1e-6)
    rows = [(tmp_path / name / "predictions.csv").read_text().splitlines() for name in ("one", "two")]
    assert [row.split(",")[:7] for row in rows[0]] == [row.split(",")[:7] for row in rows[1]]
    assert len(rows[0]) == 12
    assert (tmp_path / "one" / "per_class.csv").read_text() == (tmp_path / "two" / "per_class.csv").read_text()


def training_command(script, folder, images=19):
    """The command line of a training on a small dataset in `folder`, made here: `images` to train, 5 to validate."""
    write_images(folder / "data", {"train": {"bright": images - 9, "dark": 9}, "val": {"bright": 3, "dark": 2}})
    arguments = [script, "--config", CONFIG, "--data_url", "data", "--num_classes", 2, *OVERRIDES]
    arguments += ["network.dropout=0.2", "train.batch_size=4", "train.ema_decay=0.5", "evaluation.batch_size=3"]
    return [*arguments, "schedule.name=constant", "optimizer.name=rmsprop"]


def test_training_on_two_processes(tmp_path):
    """One run folder, and all validation images counted."""
    arguments = training_command("tests/training/tiny_train.py", tmp_path)
    logs = msrun(*arguments, "--output_dir", "whole", "train.epochs=2", cwd=tmp_path)
    assert logs.count("global batch 8: 2 x 4 on CPU") == logs.count("epoch 2/2") == logs.count("evaluate with") == 1
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("runs")]
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").open()))
    assert [(row["step"], row["images"]) for row in rows] == [("2", "5"), ("4", "5")]


def start_node(folder, port, node):
    """Start one of two machines with a device each, as the script does it."""
    variables = {"MASTER_PORT": str(port), "LOG_DIR": str(folder / f"node_{node}"), "PATH": search_path()}
    script = ["bash", str(PROJECT / "scripts" / "run_distribute_train.sh"), str(folder / "data"), "CPU", "1"]
    arguments = [*script, "--nodes", "2", "--node", str(node), "--master", "127.0.0.1"]
    arguments += [str(part) for part in training_command("train.py", folder)[1:] if part not in ("--data_url", "data")]
    arguments += ["--output_dir", str(folder / "run"), "train.epochs=1"]
    return subprocess.Popen(arguments, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_machines(tmp_path):
    """On one machine, msrun takes either for the first, and the later of their schedulers finds the port taken."""
    port = find_port()
    nodes = [start_node(tmp_path, port, node) for node in (0, 1)]
    for node in nodes:
        node.communicate(timeout=300)
    workers = [(tmp_path / f"node_{node}" / f"worker_{node}.log").read_text() for node in (0, 1)]
    assert not any("Traceback" in text or "error: " in text for text in workers), workers
    log = (tmp_path / "run" / "train.log").read_text()
    assert "global batch 8: 2 x 4 on CPU" in log and "epoch 1/1" in log


@pytest.mark.parametrize("extra", [["--nodes", "2", "--node", "2"], ["--nodes", "0"], ["--nodes", "two"]])
def test_machines_that_cannot_be(tmp_path, extra):
    script = ["bash", str(PROJECT / "scripts" / "run_distribute_train.sh"), "data", "CPU", "1", *extra]
    result = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stderr.startswith("usage: ") and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_resumed_run_on_two_processes_ends_like_a_whole_one(tmp_path):
    arguments = training_command("train.py", tmp_path)
    msrun(*arguments, "--output_dir", "whole", "train.epochs=2", cwd=tmp_path)
    msrun(*arguments, "--output_dir", "parts", "train.epochs=1", cwd=tmp_path)
    logs = msrun(*arguments, "--output_dir", "parts", "--resume", "auto", "train.epochs=2", cwd=tmp_path)
    assert "train.epochs: 1 -> 2" in logs and logs.count("resumed from parts/last.ckpt: epoch 1, batch 0") == 1
    whole, parts = (read_checkpoint(tmp_path / name / "last.ckpt")[0] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(value, parts[name]) for name, value in whole.items())


def kill_rank(rank, launcher, log, text):
    """Kill one of two processes as soon as `text` is in the log; all others end within a minute, with an error."""
    deadline = time.monotonic() + 300
    while not (log.is_file() and text in log.read_text()):
        assert launcher.poll() is None and time.monotonic() < deadline, launcher.communicate()
        time.sleep(0.001)
    processes = psutil.Process(launcher.pid).children(recursive=True)
    of_rank = {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)}
    (victim,) = (
        process
        for process in processes
        if process.ppid() == launcher.pid and process.name() != "tail" and of_rank.items() <= process.environ().items()
    )
    victim.kill()
    launcher.communicate(timeout=60)
    assert launcher.returncode not in (0, None)
    assert not psutil.wait_procs(processes, timeout=5)[1]


@pytest.mark.slow
def test_a_run_of_which_a_process_was_killed_ends_like_a_whole_one(tmp_path):
    """First the main process is killed and then the other one, with images loaded by further processes.

    5 updates an epoch, each of which is saved: at the fourth line of an epoch, its third update certainly is.
    """
    arguments = training_command("tests/training/tiny_train.py", tmp_path, images=41)
    arguments += ["train.epochs=3", "train.save_every=1", "train.log_every=1", "data.worker_processes=true"]
    msrun(*arguments, "--output_dir", "whole", cwd=tmp_path)

    broken = tmp_path / "broken"
    last = broken / "last.ckpt"
    for rank, epoch in ((0, 2), (1, 3)):
        launcher = start_msrun(*arguments, "--output_dir", "broken", "--resume", "auto", cwd=tmp_path)
        kill_rank(rank, launcher, broken / "train.log", f"epoch {epoch}/3  batch 4/5")
        progress = json.loads(read_checkpoint(last)[1]["progress"])
        assert progress["epoch"] == epoch - 1 and progress["batch"] in (3, 4)
    (broken / ".last.ckpt.1.tmp.ckpt").write_bytes(last.read_bytes()[:1000])
    logs = msrun(*arguments, "--output_dir", "broken", "--resume", "auto", cwd=tmp_path)
    assert f"resumed from broken/last.ckpt: epoch 2, batch {progress['batch']}\n" in logs

    assert set(os.listdir(broken)) == set(os.listdir(tmp_path / "whole"))
    whole, parts = (read_checkpoint(tmp_path / name / "last.ckpt")[0] for name in ("whole", "broken"))
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(value, parts[name]) for name, value in whole.items())
