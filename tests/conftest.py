"""What all tests share: the project on the path, references (timm, torch) that skip where they are missing."""

import importlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]
os.environ["XDG_CACHE_HOME"] = str(PROJECT / ".pytest_cache" / "graphs")  # of commands that tests run
sys.path.insert(0, str(PROJECT))


def reference(module):
    """The independent implementation `module`; skips with the reason where it is missing, but never in CI."""
    if os.environ.get("CI"):
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"{module} is not installed: pip install -r tests/requirements.txt")


def shared_data(name):
    """Folder of a small real data set beside the checkout; skips where it is missing."""
    folder = PROJECT.parent / "shared" / "data" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def randomise_(model, seed=0):
    """Give a torch model random weights and, above all, random batch normalisation; returns it in eval mode."""
    torch = importlib.import_module("torch")
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            uniform(module.weight, 0.5, 1.5)
            uniform(module.bias, -0.5, 0.5)
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.5, 1.5)
    return model.eval()


def randomise_batch_norm(network, seed=0):
    """Give a network of ours random batch normalisation; returns it in evaluation mode."""
    import mindspore

    generator = np.random.default_rng(seed)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.5, 1.5)}
    for parameter in network.get_parameters():
        limits = ranges.get(parameter.name.rpartition(".")[2])
        if limits:
            values = generator.uniform(*limits, parameter.shape).astype(np.float32)
            parameter.set_data(mindspore.Tensor(values))
    return network.set_train(False)


def copy_weights(model, network):
    """Copy a torch model's weights into `network` by name; every parameter must be given exactly once."""
    import mindspore

    from src.porting import BATCH_COUNTER, from_pytorch_name

    weights = {
        from_pytorch_name(name): value.detach().numpy()
        for name, value in model.state_dict().items()
        if not name.endswith(BATCH_COUNTER)
    }
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    assert weights.keys() == parameters.keys()
    for name, parameter in parameters.items():
        assert tuple(parameter.shape) == weights[name].shape, name
        parameter.set_data(mindspore.Tensor(weights[name].astype(np.float32)))
    return network.set_train(False)


@pytest.fixture(autouse=True)
def graph_mode():
    """Every test starts in graph mode; MindSpore's own default is PyNative."""
    import mindspore

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
