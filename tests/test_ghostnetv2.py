"""The network against timm's and PyTorch's, with random batch normalisation."""

import json

import mindspore
import numpy as np
import pytest
from conftest import PROJECT, copy_weights, randomise_, reference
from mindspore import Tensor, nn, ops

from src.errors import UserError
from src.ghostnetv2 import BLOCKS, VARIANTS, GhostModule, create_network, round_channels
from src.porting import to_pytorch_name

TIMM_NAMES = {
    "ghostnetv2_1x": "ghostnetv2_100",
    "ghostnetv2_1_3x": "ghostnetv2_130",
    "ghostnetv2_1_6x": "ghostnetv2_160",
    "ghostnet_1x": "ghostnet_100",
}
TRAINABLE = {
    "ghostnetv2_1x": 6_156_908,
    "ghostnetv2_1_3x": 8_960_404,
    "ghostnetv2_1_6x": 12_392_698,
}


@pytest.fixture
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def picture(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def pair(name):
    """A timm model and our network with the same random weights, no dropout."""
    torch, timm = reference("torch"), reference("timm")
    torch.manual_seed(0)
    model = randomise_(timm.create_model(TIMM_NAMES[name], drop_rate=0.0))
    return model, copy_weights(model, create_network(name, dropout=0.0))


def assert_equal_logits(model, network, x):
    torch = reference("torch")
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    assert np.abs(network(Tensor(x)).asnumpy() - expected).max() < 1e-5, x.shape


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_logits_equal_timm_in_graph_mode(name):
    assert_equal_logits(*pair(name), picture(2, 3, 224, 224))


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_logits_equal_timm_at_any_size(name, pynative):
    model, network = pair(name)
    for size in ((320, 320), (227, 227), (192, 256), (33, 33), (47, 101)):
        assert_equal_logits(model, network, picture(1, 3, *size))


def test_gradients_equal_pytorch_in_training_mode():
    """Ours in float32 against PyTorch's in float64.

    A ReLU input within rounding of zero falls on the other side in one of the two; everything in front of
    that layer then differs by about 1e-3. From the output back to the first of these, errors are rounding.
    """
    torch = reference("torch")
    model, network = pair("ghostnetv2_1x")
    x, labels = picture(8, 3, 128, 128), np.arange(8, dtype=np.int32)
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
    assert np.median(errors) < 1e-4
    flips = np.flatnonzero(np.array(errors) > 1e-5)
    assert len(flips) == 0 or flips[-1] < len(errors) - 100


def test_parameters_are_those_of_the_official_port():
    listing = PROJECT.parent / "shared" / "official_port_parameters.json"
    if not listing.is_file():
        pytest.skip(f"{listing} is not there")
    network = create_network("ghostnetv2_1x")
    assert {p.name: list(p.shape) for p in network.get_parameters()} == json.loads(listing.read_text())


@pytest.mark.parametrize("name", TRAINABLE)
def test_number_of_parameters(name):
    assert sum(p.size for p in create_network(name).trainable_params()) == TRAINABLE[name]


def test_round_channels():
    # nearest multiple of 4, never more than 10 % below: 20.8 -> 20, 62.4 -> 64, 9 -> 12 (8 would lose 11 %)
    assert [round_channels(c) for c in (1, 4, 9, 20.8, 62.4, 52.0, 25.6)] == [4, 4, 12, 20, 64, 52, 24]


def dfc_in_torch(dfc, x, size, options):
    """DFC attention written once more, with PyTorch's functions and the weights of our cell."""
    torch = reference("torch")
    functional = torch.nn.functional
    cells = dfc.cell_list
    x = torch.from_numpy(x)
    half = (x.shape[2] // 2, x.shape[3] // 2)
    down = {
        "avg_pool": lambda: functional.avg_pool2d(x, 2),
        "max_pool": lambda: functional.max_pool2d(x, 2),
        "bilinear": lambda: functional.interpolate(x, half, mode="bilinear", align_corners=False),
    }
    gates = {"sigmoid": torch.sigmoid, "hard_sigmoid": functional.hardsigmoid, "none": lambda y: y}
    y = down[options.get("down_sampling", "avg_pool")]()
    k = options.get("kernel_size", 5) // 2
    for cell, padding in zip(cells, (0, (0, k), (k, 0))):
        weight = torch.from_numpy(cell.conv.weight.asnumpy())
        groups = weight.shape[0] if weight.shape[1] == 1 else 1
        y = functional.conv2d(y, weight, padding=padding, groups=groups)
        statistics = (cell.bn.moving_mean, cell.bn.moving_variance, cell.bn.gamma, cell.bn.beta)
        y = functional.batch_norm(y, *(torch.from_numpy(p.asnumpy()) for p in statistics))
    gate, up = gates[options.get("gate", "sigmoid")], options.get("up_sampling", "nearest")
    corners = {} if up == "nearest" else {"align_corners": up == "bilinear_align_corners"}
    first = options.get("gate_position", "before_up_sampling") == "before_up_sampling"
    y = gate(y) if first else y
    y = functional.interpolate(y, size, mode=up.split("_")[0], **corners)
    return (y if first else gate(y)).numpy()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 7, "down_sampling": "max_pool"},
        {"down_sampling": "bilinear", "up_sampling": "bilinear"},
        {"up_sampling": "bilinear_align_corners", "gate_position": "after_up_sampling"},
        {"up_sampling": "bicubic", "gate": "hard_sigmoid"},
        {"up_sampling": "nearest", "gate": "none"},
    ],
    ids=str,
)
def test_dfc_options_equal_pytorch(options, pynative):
    module = GhostModule(6, 10, dfc=options).set_train(False)
    rng = np.random.default_rng(1)
    for parameter in module.get_parameters():
        parameter.set_data(Tensor(rng.uniform(0.3, 1.3, parameter.shape).astype(np.float32)))
    for height, width in ((16, 16), (15, 22), (7, 9)):
        x = picture(2, 6, height, width)
        expected = dfc_in_torch(module.short_conv, x, (height, width), options)
        actual = module.short_conv(Tensor(x), (height, width)).asnumpy()
        assert np.abs(actual - expected).max() < 2e-5 * np.abs(expected).max()


def names_with_dfc(**options):
    parameters = create_network("ghostnetv2_1x", num_classes=10, **options).get_parameters()
    return {p.name.split(".short_conv")[0] for p in parameters if "short_conv" in p.name}


def test_which_blocks_and_ghost_modules_have_dfc():
    blocks = range(2, len(BLOCKS))
    assert names_with_dfc() == {f"blocks.{i}.ghost1" for i in blocks}
    assert names_with_dfc(dfc_target="capacity") == {f"blocks.{i}.ghost2" for i in blocks}
    assert names_with_dfc(dfc_target="both") == {f"blocks.{i}.ghost{j}" for i in blocks for j in (1, 2)}
    assert names_with_dfc(dfc_blocks=(3, 15)) == {"blocks.3.ghost1", "blocks.15.ghost1"}
    assert names_with_dfc(dfc_blocks=()) == set()


def test_every_option_runs_forward_and_backward_in_graph_mode():
    network = create_network(
        "ghostnetv2_nose_1x",
        num_classes=3,
        dropout=0.0,
        dfc_target="both",
        dfc_blocks=(2, 11),
        dfc_down_sampling="bilinear",
        dfc_up_sampling="bicubic",
        dfc_gate="hard_sigmoid",
        dfc_gate_position="after_up_sampling",
    ).set_train(True)
    assert not any(".se." in p.name for p in network.get_parameters())

    def forward(x):
        return network(x).sum()

    gradients = ops.value_and_grad(forward, None, network.trainable_params())(Tensor(picture(2, 3, 65, 70)))[1]
    assert all(np.isfinite(g.asnumpy()).all() for g in gradients)


@pytest.mark.parametrize("name", ["ghostnetv2_1x", "ghostnetv2_1_3x"])
def test_features_equal_timm(name, pynative):
    torch = reference("torch")
    model, network = pair(name)
    x = picture(1, 3, 95, 130)
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
    assert [m.shape for m in network(Tensor(picture(1, 3, 64, 64)))] == [
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
        x = Tensor(picture(1, 3, *size))
        for ours, theirs, stride, full in zip(fine(x), coarse(x), strides, (4, 8, 16, 32)):
            step = full // stride
            ours, theirs = ours.asnumpy()[:, :, ::step, ::step], theirs.asnumpy()
            assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_dilated_dfc_keeps_the_values_at_shared_positions(pynative):
    """DFC halves its input, so only where that leaves pictures alone: of 4x4 pixels of the fine grid in one colour."""
    coarse = GhostModule(6, 10, dfc={}).short_conv.set_train(False)
    fine = GhostModule(6, 10, dfc={"dilation": 2}).short_conv.set_train(False)
    rng = np.random.default_rng(3)
    for ours, theirs in zip(fine.get_parameters(), coarse.get_parameters()):
        values = Tensor(rng.uniform(0.3, 1.3, ours.shape).astype(np.float32))
        ours.set_data(values)
        theirs.set_data(values)
    x = picture(1, 6, 7, 9).repeat(4, 2).repeat(4, 3)
    dilated = fine(Tensor(x), x.shape[2:]).asnumpy()
    plain = coarse(Tensor(np.ascontiguousarray(x[:, :, ::2, ::2])), (14, 18)).asnumpy()
    assert np.abs(dilated[:, :, ::2, ::2] - plain).max() < 1e-6 < np.ptp(plain)


def test_every_spatial_convolution_behind_a_replaced_stride_is_dilated():
    network = create_network("ghostnetv2_1x", features_only=True, output_stride=8)
    found = {}
    for name, cell in network.cells_and_names():
        if isinstance(cell, nn.Conv2d) and max(cell.kernel_size) > 1:
            assert max(cell.stride) == 1 or not name.startswith(("blocks.5.", "blocks.11."))
            found.setdefault(max(cell.dilation), set()).add(name.removesuffix(".conv"))
    # the strides of blocks 5 and 11 are replaced: what follows the depthwise convolution in their place, is dilated
    for dilation, first, last in ((2, 5, 11), (4, 11, 16)):
        wanted = {f"blocks.{first}.ghost2.cheap_operation"}
        for index in range(first + 1, min(last + 1, len(BLOCKS))):
            wanted |= {f"blocks.{index}.ghost1.{part}" for part in ("cheap_operation", "short_conv.1", "short_conv.2")}
            wanted |= {f"blocks.{index}.ghost2.cheap_operation"} if index < last else set()
            wanted |= {f"blocks.{index}.shortcut.0"} if BLOCKS[index][2] != BLOCKS[index - 1][2] else set()
            wanted |= {f"blocks.{index}.dw"} if BLOCKS[index][4] > 1 else set()
        assert found[dilation] == wanted
    assert set(found) == {1, 2, 4}


@pytest.mark.parametrize("mode", [mindspore.GRAPH_MODE, mindspore.PYNATIVE_MODE])
def test_too_small_an_input_says_so(mode):
    mindspore.set_context(mode=mode)
    network = create_network("ghostnetv2_1x")
    with pytest.raises(ValueError, match="input is 32x64 pixels, GhostNetV2 needs at least 33x33"):
        network(Tensor(picture(1, 3, 32, 64)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ghostnetv2_10x", {}, "network='ghostnetv2_10x' is not one of .*did you mean 'ghostnetv2_1"),
        ("ghostnetv2_1x", {"dfc_gate": "sigmoyd"}, "dfc_gate='sigmoyd'.*did you mean 'sigmoid'"),
        ("ghostnetv2_1x", {"dfc_kernel_size": 4}, "dfc_kernel_size=4 is not a positive odd number"),
        ("ghostnetv2_1x", {"dfc_blocks": (16,)}, "dfc_blocks has 16, blocks are numbered 0 to 15"),
        ("ghostnetv2_1x", {"output_stride": 4}, "output_stride=4 is not one of 8, 16, 32"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(UserError, match=message):
        create_network(name, **options)


def test_variants_have_a_function_each():
    from src import ghostnetv2

    for name in VARIANTS:
        assert getattr(ghostnetv2, name)(num_classes=5).classifier.weight.shape == (5, 1280)
