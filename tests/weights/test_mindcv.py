"""Weights of MindSpore's other networks: mindcv's GhostNet V1, and the ModelZoo's with its training state."""

import json
from pathlib import Path

import mindspore
import numpy as np
import pytest
from helpers import call_here, normal, random_timm, reference
from mindspore import Parameter, Tensor, nn

from src.networks import create_network
from src.weights import load_weights, read_weights, save_weights
from src.weights.names import MINDCV, from_mindcv, recognise_names, to_mindcv_name

# {name: shape} of `ghostnet_100`, in the order of mindcv 0.3.0's own network
NAMES = json.loads(Path(__file__).with_name("mindcv_ghostnet_100.json").read_text())
LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


@pytest.fixture(scope="module", autouse=True)
def run_by_operator():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)


def modules_of(names):
    """The modules that names of parameters belong to, in order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


@pytest.fixture(scope="module")
def timm_model():
    return random_timm("ghostnet_100")


@pytest.fixture(scope="module")
def arrays(timm_model):
    """{mindcv's name: array} of timm's network: both list the same modules in the same order."""
    state = {name: value.numpy() for name, value in timm_model.state_dict().items()}
    pairs = dict(zip(modules_of(NAMES), modules_of(state)))
    assert len(pairs) == len(modules_of(state))
    arrays = {}
    for name, shape in NAMES.items():
        module, _, leaf = name.rpartition(".")
        arrays[name] = state[f"{pairs[module]}.{LEAVES.get(leaf, leaf)}"]
        assert list(arrays[name].shape) == shape, name
    return arrays


@pytest.fixture(scope="module")
def checkpoint(arrays, tmp_path_factory):
    """A checkpoint as mindcv writes it."""
    path = tmp_path_factory.mktemp("mindcv") / "a.ckpt"
    entries = [{"name": name, "data": Tensor(value)} for name, value in arrays.items()]
    mindspore.save_checkpoint(entries, str(path))
    return path


def test_names_map_one_to_one():
    assert recognise_names(NAMES) == MINDCV
    ours = [parameter.name for parameter in create_network("ghostnet_1x").get_parameters()]
    assert set(from_mindcv(NAMES)) == set(ours)
    assert {to_mindcv_name(name) for name in ours} == set(NAMES)


def test_a_checkpoint_loads_and_gives_the_same_logits(timm_model, checkpoint):
    network = create_network("ghostnet_1x").set_train(False)
    words = load_weights(network, checkpoint)
    assert words == f"{checkpoint}: MindSpore checkpoint, with mindcv's names: ghostnet_1x for 1000 classes"
    x = normal(1, 3, 64, 64)
    with reference("torch").no_grad():
        expected = timm_model(reference("torch").from_numpy(x)).numpy()
    assert np.abs(network(Tensor(x)).asnumpy() - expected).max() < 1e-5 * np.ptp(expected)


@pytest.mark.parametrize("ending", ["ckpt", pytest.param("safetensors", marks=pytest.mark.slow)])
def test_porting_there_and_back_is_exact(arrays, checkpoint, tmp_path, ending):
    script, middle, end = "scripts/port_weights.py", f"ours.{ending}", f"theirs.{ending}"
    result = call_here(script, "--input", checkpoint, "--output", middle, cwd=tmp_path)
    assert "432 entries read, 432 written" in result.stdout, result.stderr
    assert "blocks.16.bn.gamma" in read_weights(tmp_path / middle).weights
    result = call_here(script, "--input", middle, "--output", end, "--names", "mindcv", cwd=tmp_path)
    assert "432 entries read, 432 written" in result.stdout, result.stderr
    if ending == "ckpt":
        found = {
            name: value.asnumpy()
            for name, value in mindspore.load_checkpoint(str(tmp_path / end)).items()
            if isinstance(value, Parameter)
        }
    else:
        found = reference("safetensors.numpy").load_file(tmp_path / end)
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert np.array_equal(found[name], value), name


def test_porting_between_pytorch_and_mindcv(timm_model, arrays, tmp_path):
    reference("torch").save(timm_model.state_dict(), tmp_path / "a.pth")
    arguments = ("--input", "a.pth", "--output", "b.safetensors", "--names", "mindcv")
    assert call_here("scripts/port_weights.py", *arguments, cwd=tmp_path).returncode == 0
    found = reference("safetensors.numpy").load_file(tmp_path / "b.safetensors")
    assert found.keys() == arrays.keys() and all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_files_with_training_state_load(tmp_path):
    """As the ModelZoo's scripts write them: with Momentum, a list of learning rates and the callback's notes."""
    network = create_network("ghostnet_1x", 3)
    optimizer = nn.Momentum(network.trainable_params(), [0.1, 0.2], 0.9, loss_scale=128.0)
    step = nn.TrainOneStepCell(network, optimizer)
    path = tmp_path / "a.ckpt"
    mindspore.save_checkpoint(step, str(path), append_dict={"epoch_num": 3, "step_num": 9})
    saved = mindspore.load_checkpoint(str(path))
    assert "moments.conv_stem.weight" in saved and "learning_rate" in saved and "step_num" in saved
    file = read_weights(path)
    assert file.describe() == (
        "MindSpore checkpoint, its weights without the optimizer's state: ghostnet_1x for 3 classes"
    )
    assert set(file.weights) == {parameter.name for parameter in network.get_parameters()}


@pytest.mark.parametrize("optimizer", [nn.Adam, nn.AdamWeightDecay, nn.RMSProp, nn.SGD])
def test_state_of_every_optimizer_is_left_out(tmp_path, optimizer):
    network = nn.SequentialCell(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    step = nn.TrainOneStepCell(network, optimizer(network.trainable_params()))
    mindspore.save_checkpoint(step, str(tmp_path / "a.ckpt"))
    names = {parameter.name for parameter in network.get_parameters()}
    assert names < set(mindspore.load_checkpoint(str(tmp_path / "a.ckpt")))
    assert set(read_weights(tmp_path / "a.ckpt").weights) == names


@pytest.mark.parametrize(
    ("network", "options", "names", "message"),
    [
        ("ghostnetv2_1x", {}, "mindcv", "has no names for ghostnetv2_1x, only for GhostNet V1"),
        ("mobilenetv2_1x", {}, "mindcv", "has no names for mobilenetv2_1x, only for GhostNet V1"),
        (
            "ghostnetv2_1x",
            {"attention": "self_attention"},
            "pytorch",
            "has no names for ghostnetv2_1x with attention self_attention, such as ghost1.short_conv.",
        ),
    ],
)
def test_what_has_no_names_elsewhere_is_refused(tmp_path, network, options, names, message):
    save_weights(create_network(network, 3, **options), tmp_path / "a.ckpt")
    arguments = ("--input", "a.ckpt", "--output", "b.safetensors", "--names", names)
    result = call_here("scripts/port_weights.py", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: --names {names}: {message}") and result.stderr.count("\n") == 1
