"""On a GPU or an Ascend: what it computes is what the CPU computes. All is skipped where MindSpore finds no device."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import PROJECT, call, command

from src.runtime import find_devices

DEVICES = [name for name, problem in find_devices().items() if name != "CPU" and problem is None]
pytestmark = pytest.mark.skipif(not DEVICES, reason="MindSpore finds neither a GPU nor an Ascend")
TASKS = ("classification", "detection", "segmentation")
PLAIN = ("precision.amp=O0", "train.ema_decay=0", "optimizer.name=sgd")
PRECISIONS = {  # how far the losses may be apart, relative to them
    "O0": 2e-3,
    "auto": 2e-2,
    "O2": 3e-2,
    "O3": 3e-2,
}


@pytest.fixture(scope="session")
def numbers(tmp_path_factory):
    """Function (device, task, *settings) -> what `compute` of compute.py gives there, which is computed once."""
    folder, known = tmp_path_factory.mktemp("numbers"), {}

    def compute(device, task, *settings):
        if device != "CPU":
            compute("CPU", task, *PLAIN)  # writes the weights
        key = (device, task, *settings)
        if key not in known:
            file, weights = folder / f"{len(known)}.npz", folder / f"{task}.ckpt"
            command = [sys.executable, "tests/device/compute.py", device, task, file, weights, *settings]
            result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr[-3000:]
            known[key] = dict(np.load(file))
        return known[key]

    return compute


@pytest.mark.parametrize("task", TASKS)
def test_outputs_are_those_of_the_cpu(numbers, task):
    found, expected = (numbers(device, task, *PLAIN) for device in (DEVICES[0], "CPU"))
    outputs = [name for name in expected if name.startswith("output")]
    assert outputs
    for name in outputs:
        assert np.abs(found[name] - expected[name]).max() <= 1e-4 * np.ptp(expected[name]), name


@pytest.mark.parametrize("task", TASKS)
def test_float32_steps_are_those_of_the_cpu(numbers, task):
    found, expected = (numbers(device, task, *PLAIN) for device in (DEVICES[0], "CPU"))
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=PRECISIONS["O0"])
    assert expected["losses"][-1] < expected["losses"][0]
    statistics = [name for name in expected if name.endswith(("moving_mean", "moving_variance"))]
    weights = [name for name in expected if name.startswith("change") and name not in statistics]
    for names in (weights, statistics):  # as vectors: single gradients move with rounding, at the kinks of ReLU
        change, difference = (
            np.concatenate([values.ravel() for values in parts])
            for parts in ([expected[name] for name in names], [found[name] - expected[name] for name in names])
        )
        assert np.linalg.norm(difference) <= 0.1 * np.linalg.norm(change)


def test_masks_of_dropout_are_those_of_the_cpu(numbers):
    found, expected = (numbers(device, "classification", *PLAIN)["masks"] for device in (DEVICES[0], "CPU"))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("amp", ["auto", "O2", "O3"])
@pytest.mark.parametrize("task", TASKS)
def test_mixed_precision_learns_as_float32_does(numbers, task, amp):
    expected = numbers("CPU", task, *PLAIN)
    scale = 1 if task == "detection" else 1024  # its loss is a sum over places
    settings = (f"precision.amp={amp}", *PLAIN[1:], f"precision.loss_scale={scale}")
    found = numbers(DEVICES[0], task, *settings)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=PRECISIONS[amp])
    assert found["skipped"] == 0


@pytest.mark.parametrize("optimizer", ["rmsprop", "adamw"])
def test_optimizers_are_those_of_the_cpu(numbers, optimizer):
    settings = (*PLAIN[:1], "train.ema_decay=0.9", f"optimizer.name={optimizer}", "schedule.learning_rate=0.0005")
    found, expected = (numbers(device, "classification", *settings) for device in (DEVICES[0], "CPU"))
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-2)


def test_digits_train_resume_evaluate_and_export(tmp_path):
    """The commands of the documentation, on the device, in mixed precision; the run is interrupted once."""
    data, run, device = tmp_path / "digits", tmp_path / "run", ("--device_target", DEVICES[0])
    result = call("scripts/make_demo_data.py", data, cwd=PROJECT)
    assert result.returncode == 0, result.stderr
    config = ("--config", "configs/classification/digits.yaml", "--data_url", data, "--output_dir", run)
    arguments = (*config, *device, "precision.amp=O2")
    with subprocess.Popen(command("train.py", *arguments), cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if re.match(r"epoch 3\b", line):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    result = call("train.py", *arguments, "--resume", "auto", cwd=PROJECT)
    assert result.returncode == 0, result.stderr
    accuracies = {}
    weights = ("--checkpoint_path", run / "best.ckpt", "--data_url", data)
    for target in (DEVICES[0], "CPU"):
        result = call("eval.py", *weights, "--device_target", target, cwd=PROJECT)
        assert result.returncode == 0, result.stderr
        accuracies[target] = float(re.search(r"'top_1_accuracy': ([0-9.]+)", result.stdout)[1])
    assert min(accuracies.values()) >= 0.97
    assert abs(accuracies[DEVICES[0]] - accuracies["CPU"]) <= 0.003
    arguments = ("--checkpoint_path", run / "best.ckpt", "--file_name", tmp_path / "digits", "--file_format", "MINDIR")
    result = call("export.py", *arguments, *device, cwd=PROJECT)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "digits.mindir").is_file()
