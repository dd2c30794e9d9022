"""The network against timm's and PyTorch's, with random batch normalisation."""

import importlib
import json

import mindspore
import numpy as np
import pytest
from helpers import PROJECT, assert_close, copy_weights, normal, random_timm, reference
from mindspore import Tensor, nn, ops

from src.architecture import VARIANTS
from src.errors import UserError
from src.networks import create_network
from src.weights.names import TIMM_NAMES, to_pytorch_name

GHOSTNETS = [name for name in TIMM_NAMES if name in VARIANTS]


@pytest.fixture
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def build_pair(name):
    """A timm model and our network with the same random weights, no dropout."""
    model = random_timm(TIMM_NAMES[name], drop_rate=0.0)
    return model, copy_weights(model, create_network(name, dropout=0.0))


@pytest.fixture(scope="module")
def pair(request):
    """`build_pair` of the variant that the test names; nothing may change it."""
    return build_pair(request.param)


def assert_equal_logits(model, network, x):
    torch = reference("torch")
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    assert_close(network(Tensor(x)).asnumpy(), expected, 1e-5)


@pytest.mark.parametrize("pair", GHOSTNETS, indirect=True)
def test_logits_equal_timm_in_graph_mode(pair):
    assert_equal_logits(*pair, normal(2, 3, 224, 224))


@pytest.mark.parametrize("pair", GHOSTNETS, indirect=True)
def test_logits_equal_timm_at_any_size(pair, pynative):
    for size in ((320, 320), (227, 227), (192, 256), (33, 33), (47, 101)):
        assert_equal_logits(*pair, normal(1, 3, *size))


@pytest.mark.long
def test_gradients_equal_pytorch_in_training_mode():
    """Ours in float32 against PyTorch's in float64.

    A ReLU input within rounding of zero falls on the other side in one of the two; everything in front of
    that layer then differs by about 1e-3. From the output back to the first of these, errors are rounding.
    """
    torch = reference("torch")
    model, network = build_pair("ghostnetv2_1x")
    x, labels = normal(8, 3, 128, 128), np.arange(8, dtype=np.int32)
    model.double().train()
    loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x).double()), torch.from_numpy(labels).long())
    loss.backward()
    expected = dict(model.named_parameters())

    network.set_train(True)
    loss_function = nn.CrossEntropyLoss()

    def forward(x, labels):
        return loss_function(network(x), labels)

    parameters = network.trainable_params()
    our_loss, ours = ops.value_and_grad(forward, None, parameters)(Tensor(x), Tensor(labels))
    assert abs(float(our_loss.asnumpy()) - loss.item()) < 1e-5 * loss.item()

    errors = []
    for parameter, gradient in zip(parameters, ours):
        gradient = gradient.asnumpy()
        assert np.isfinite(gradient).all(), parameter.name
        truth = expected[to_pytorch_name(parameter.name)].grad.numpy()
        if np.linalg.norm(truth) < 1e-12:  # a bias in front of a batch normalisation
            assert np.abs(gradient).max() < 1e-6, parameter.name
        else:
            errors.append(np.linalg.norm(gradient - truth) / np.linalg.norm(truth))
    assert len(errors) > 380
    assert np.median(errors) < 5e-4
    flips = np.flatnonzero(np.array(errors) > 1e-5)
    assert len(flips) == 0 or flips[-1] < len(errors) - 100


def test_parameters_are_those_of_the_official_port():
    listing = PROJECT.parent / "shared" / "official_port_parameters.json"
    if not listing.is_file():
        pytest.skip(f"{listing} is not there")
    network = create_network("ghostnetv2_1x")
    assert {p.name: list(p.shape) for p in network.get_parameters()} == json.loads(listing.read_text())


@pytest.mark.parametrize("pair", ["ghostnetv2_1x", "ghostnetv2_1_3x"], indirect=True)
def test_features_equal_timm(pair, pynative):
    torch = reference("torch")
    model, network = pair
    x = normal(1, 3, 95, 130)
    expected = []
    with torch.no_grad():
        y = model.act1(model.bn1(model.conv_stem(torch.from_numpy(x))))
        for stage in model.blocks[:-1]:
            y = stage(y)
            expected.append(y.numpy())
    maps = network.features(Tensor(x))
    for ours, theirs in zip(maps, (expected[2], expected[4], expected[6], expected[8])):
        assert np.abs(ours.asnumpy() - theirs).max() < 1e-5 * np.abs(theirs).max()
    # 95 -> 48 -> 24 -> 12 -> 6 -> 3: every stride rounds up
    assert [m.shape[2:] for m in maps] == [(24, 33), (12, 17), (6, 9), (3, 5)]
    assert tuple(m.shape[1] for m in maps) == network.feature_channels
    assert network.feature_strides == (4, 8, 16, 32)


def test_features_only_leaves_the_head_out(pynative):
    network = create_network("ghostnetv2_1x", features_only=True)
    assert network.feature_channels == (24, 40, 112, 160)
    assert not any(p.name.startswith(("blocks.16", "conv_head", "classifier")) for p in network.get_parameters())
    assert [m.shape for m in network(Tensor(normal(1, 3, 64, 64)))] == [
        (1, 24, 16, 16),
        (1, 40, 8, 8),
        (1, 112, 4, 4),
        (1, 160, 2, 2),
    ]


@pytest.mark.parametrize(("output_stride", "strides"), [(16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))])
def test_dilation_keeps_the_values_at_shared_positions(output_stride, strides, pynative):
    """Without global operations (squeeze-and-excitation, DFC's pooling) a dilated network refines the grid.

    With DFC that holds up to the first pooling on the finer grid: through the block that loses its stride.
    """
    options = {"squeeze_excitation": False, "dfc_blocks": (2, 3, 4, 5), "features_only": True}
    coarse = create_network("ghostnetv2_1x", **options).set_train(False)
    rng = np.random.default_rng(2)
    for parameter in coarse.get_parameters():
        if ".bn." in parameter.name:
            parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    fine = create_network("ghostnetv2_1x", output_stride=output_stride, **options).set_train(False)
    mindspore.load_param_into_net(fine, coarse.parameters_dict(), strict_load=True)
    assert fine.feature_strides == strides
    for size in ((128, 128), (97, 150)):
        x = Tensor(normal(1, 3, *size))
        for ours, theirs, stride, full in zip(fine(x), coarse(x), strides, (4, 8, 16, 32)):
            step = full // stride
            ours, theirs = ours.asnumpy()[:, :, ::step, ::step], theirs.asnumpy()
            assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE])
def test_too_small_an_input_says_so(mode):
    mindspore.set_context(mode=mode)
    network = create_network("ghostnetv2_1x")
    with pytest.raises(ValueError, match="input is 32x64 pixels, GhostNetV2 needs at least 33x33"):
        network(Tensor(normal(1, 3, 32, 64)))


def test_mindspore_hub_finds_the_networks(pynative):
    """As MindSpore Hub calls the file: the module by its name, `create_network` with the name of a network first."""
    hub = importlib.import_module("mindspore_hub_conf")
    network = hub.create_network("ghostnet_1x", num_classes=7)
    assert network.set_train(False)(Tensor(normal(1, 3, 33, 33))).shape == (1, 7)
    with pytest.raises(UserError, match="^network: .resnet. "):
        hub.create_network("resnet")
