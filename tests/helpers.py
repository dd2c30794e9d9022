"""What tests of several files share: references, random networks, small datasets, the commands as a user runs them."""

import importlib
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.random_weights import SHAPE, draw, draw_statistics
from scripts.random_weights import randomise as randomise

PROJECT = Path(__file__).resolve().parents[1]


def reference(module):
    """The independent implementation `module`; skips with the reason where it is missing, but never in CI."""
    if not os.environ.get("CI"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install -r tests/requirements.txt")
    if module == "torch":  # several threads wait for each other, and for MindSpore's, many times as long as they work
        importlib.import_module("torch").set_num_threads(1)
    return importlib.import_module(module)


def shared_data(name):
    """Find the folder of a small real dataset beside the checkout; skips where it is missing."""
    folder = PROJECT.parent / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def randomise_(model, seed=0, gain=1.0):
    """As `randomise`: give a torch model of images random weights; returns it in evaluation mode."""
    torch = importlib.import_module("torch")
    generator = np.random.default_rng(seed)

    def set_(tensor, values):
        tensor.data.copy_(torch.from_numpy(np.asarray(values)))

    def set_statistics(norm, features):
        mean, variance = draw_statistics(generator, features[0].numpy())
        set_(norm.running_mean, mean)
        set_(norm.running_var, variance)

    hooks = []
    for module in model.modules():
        is_norm = isinstance(module, torch.nn.BatchNorm2d)
        for name, parameter in module.named_parameters(recurse=False):
            values = draw(generator, "gamma" if is_norm and name == "weight" else name, parameter.shape)
            set_(parameter, values * gain if is_norm else values)
        if is_norm:
            hooks.append(module.register_forward_pre_hook(set_statistics))
    with torch.no_grad():
        model.eval()(torch.from_numpy(normal(*SHAPE)))
    for hook in hooks:
        hook.remove()
    return model


def copy_weights(model, network):
    """Copy a torch model's weights into `network` by name; every parameter must be given exactly once."""
    import mindspore

    from src.weights.names import from_pytorch

    weights = from_pytorch({name: value.detach().numpy() for name, value in model.state_dict().items()})
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    assert weights.keys() == parameters.keys()
    for name, parameter in parameters.items():
        assert tuple(parameter.shape) == weights[name].shape, name
        parameter.set_data(mindspore.Tensor(weights[name].astype(np.float32)))
    return network.set_train(False)


def normal(*shape, seed=0):
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def build_rates(name, learning_rate, epochs, updates, seed=0, **settings):
    """The learning rates of a schedule, `settings` being those of `ScheduleSettings`."""
    from src.settings import ScheduleSettings
    from src.training.schedule import build_schedule

    return build_schedule(ScheduleSettings(name=name, learning_rate=learning_rate, **settings), epochs, updates, seed)


def optimizer_of(network, name, rates, **settings):
    """The optimizer of a network's parameters, `settings` being those of `OptimizerSettings`."""
    from src.settings import OptimizerSettings
    from src.training.optim import build_optimizer

    return build_optimizer(network.trainable_params(), rates, OptimizerSettings(name=name, **settings))


def step_of(network_with_loss, optimizer, **changes):
    """A `TrainStep` of one process without clipping, accumulation, loss scale and average, but for the changes."""
    from src.ranks import Ranks
    from src.training.step import TrainStep

    plain = {"clip_norm": 0.0, "accumulation_steps": 1, "loss_scale": "none", "initial_loss_scale": 65536.0}
    plain.update(average_decay=0.0, ranks=Ranks(), seed=0)
    return TrainStep(network_with_loss, network_with_loss, optimizer, **{**plain, **changes})


def write_images(root, counts, levels=None, size=(40, 36)):
    """Write random PNG images as a dataset of class folders.

    Args:
        root: folder of the dataset.
        counts: {split: {class name: number of images}}.
        levels: {class name: darkest grey level}, of which 96 levels are used; None: all levels in every class.
        size: (width, height).
    """
    generator = np.random.default_rng(0)
    for split, classes in counts.items():
        for name, count in classes.items():
            low, high = (0, 256) if levels is None else (levels[name], levels[name] + 96)
            for number in range(count):
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(low, high, (size[1], size[0], 3), np.uint8)).save(path)


def command(script, *arguments):
    """The command line of one of the project's scripts."""
    return [sys.executable, str(PROJECT / script), *map(str, arguments)]


def call(script, *arguments, cwd):
    """Run one of the project's scripts as a user would."""
    return subprocess.run(command(script, *arguments), cwd=cwd, capture_output=True, text=True, check=False)


def call_here(script, *arguments, cwd):
    """As `call`, but in this process, which saves the time that MindSpore takes to start."""
    from src.console import run

    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        try:
            run(module.main)
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(script, code, output.getvalue(), errors.getvalue())


def read_epochs(pipeline, epochs=1):
    """Read the pass of a pipeline over whole epochs: for each the list of its batches, tuples of arrays."""
    batches = list(map(tuple, pipeline.create_tuple_iterator(num_epochs=1, output_numpy=True)))
    size, rest = divmod(len(batches), epochs)
    assert rest == 0
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def are_equal(batches, others):
    """Whether two lists of batches from `read_epochs` are the same, and not empty."""
    assert len(batches) == len(others) > 0
    return all(np.array_equal(a, b) for batch, other in zip(batches, others) for a, b in zip(batch, other))


def assert_close(actual, expected, tolerance=1e-4):
    """Compare two arrays; `tolerance` is a share of the range of the expected values."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.ptp(expected)


def random_timm(name, **options):
    """timm's model with random weights and batch normalisation, in evaluation mode, and PyTorch with one thread."""
    torch, timm = reference("torch"), reference("timm")
    torch.manual_seed(0)
    return randomise_(timm.create_model(name, **options))
