"""scripts/show_attention.py: the drawn arrays against timm's and PyTorch's, for every task, and mistakes."""

import numpy as np
import pytest
from helpers import PROJECT, assert_close, call_here, copy_weights, random_timm, randomise, reference
from PIL import Image

from scripts import show_attention
from src.config import load_config, parse_override
from src.tasks import SCHEMAS, create_task
from src.weights.files import read_weights, save_weights

SCRIPT = "scripts/show_attention.py"
FIRST_BLOCK = 2  # with attention
SHARED = ["network.num_classes=3", "data.class_names=[one,two,three]"]
UNUSUAL = ["network.dfc_target=both", "network.dfc_gate=none", "network.dfc_up_sampling=bicubic"]
FEW = ["network.dfc_kernel_size=3", "network.dfc_blocks=[1,5,11]"]  # without a gate each block squares its features
CONFIGS = {
    "classification": ("classification/digits.yaml", ["data.image_size=129", "data.eval_resize=129", *SHARED]),
    "detection": ("detection/bccd.yaml", ["data.image_size=128", *SHARED, *UNUSUAL, *FEW]),
    "segmentation": ("segmentation/camvid.yaml", ["data.base_size=[96,64]", *SHARED]),
}


def build_network(task):
    config, changes = CONFIGS[task]
    overrides = [parse_override(change) for change in changes]
    return create_task(load_config(PROJECT / "configs" / config, SCHEMAS, overrides)).build_network()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, two of them of one name, and weights of random networks."""
    root = tmp_path_factory.mktemp("show_attention")
    generator = np.random.default_rng(0)
    for name, height, width in (("a.png", 129, 129), ("b/a.png", 65, 65), ("wide.png", 65, 97)):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(root / name)
    for task in ("detection", "segmentation"):
        save_weights(randomise(build_network(task)), root / f"{task}.ckpt")
    return root


@pytest.fixture(scope="module")
def timm_model(folder):
    """timm's GhostNetV2, whose weights are those of `classification.ckpt`."""
    model = random_timm("ghostnetv2_100", num_classes=3, drop_rate=0.0)
    save_weights(copy_weights(model, build_network("classification")), folder / "classification.ckpt")
    return model


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn = []

    def draw(*arguments, original=show_attention.draw):
        drawn.append(original(*arguments))
        return drawn[-1]

    monkeypatch.setattr(show_attention, "draw", draw)
    return drawn


def show(folder, task, output_dir, *arguments, images=("a.png",), changes=()):
    config, own_changes = CONFIGS[task]
    files = ["--config", PROJECT / "configs" / config, "--checkpoint_path", f"{task}.ckpt", "--output_dir", output_dir]
    return call_here(SCRIPT, *images, *files, *arguments, "--set", *own_changes, *changes, cwd=folder)


def read_figure(figure, columns):
    """The image, the maps (rows, columns - 1), and the labels of a figure."""
    axes = [axis for axis in figure.axes if axis.images]
    assert all(len(axis.images) == 2 for axis in np.reshape(axes, (-1, columns))[:, 1:].ravel())
    arrays = [[np.asarray(axis.images[-1].get_array()) for axis in row] for row in np.reshape(axes, (-1, columns))]
    return arrays[0][0], [row[1:] for row in arrays], [text.get_text() for text in figure.texts]


def limits(figure, columns):
    """The scale of each column of maps, which all its rows share."""
    axes = np.reshape([axis for axis in figure.axes if axis.images], (-1, columns))[:, 1:]
    found = [{axis.images[-1].get_clim() for axis in column} for column in axes.T]
    assert {len(scales) for scales in found} == {1}
    return [scales.pop() for scales in found]


def attention_in_timm(model, image):
    """For each block with attention, arrays (C, h, w) after rows, after columns, and the gate."""
    torch = reference("torch")
    maps, handles = [], []

    def hook(module, inputs, output):
        primary = module.primary_conv(inputs[0])
        gate = torch.sigmoid(maps[-1])
        maps.append(torch.nn.functional.interpolate(gate, primary.shape[2:], mode="nearest"))

    for module in model.modules():
        if hasattr(module, "short_conv"):
            for step in (module.short_conv[3], module.short_conv[5]):
                handles.append(step.register_forward_hook(lambda cell, inputs, output: maps.append(output)))
            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model(torch.from_numpy(image))
    for handle in handles:
        handle.remove()
    maps = [array[0].numpy() for array in maps]
    return list(zip(maps[::3], maps[1::3], maps[2::3]))


def test_drawn_arrays_equal_timm(folder, timm_model, figures):
    for arguments in (("--blocks", 15, 2, 6), ("--channels", 71, 0, "--blocks", 2, 15)):
        result = show(folder, "classification", f"timm{arguments[0]}", *arguments)
        assert result.returncode == 0, result.stderr
    pixels = np.asarray(Image.open(folder / "a.png")) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    batch = ((pixels - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
    expected = attention_in_timm(timm_model, batch)

    image, maps, labels = read_figure(figures[0], 4)
    assert np.abs(image - pixels).max() < 1e-6
    assert [label.split("\n")[0] for label in labels] == [
        "block 2, stride 4",
        "block 6, stride 16",
        "block 15, stride 32",
    ]
    assert labels[0].split("\n")[1:] == [
        "first Ghost module",
        "kernels 1x5, 5x1",
        "attention 16x16",
        "features 33x33",
        "mean of 72 channels",
    ]
    for block, ours in zip((2, 6, 15), maps):
        for drawn, theirs in zip(ours, expected[block - FIRST_BLOCK]):
            assert_close(drawn, theirs.mean(0))
    (low, high), gate = limits(figures[0], 4)[1:]
    assert low == -high == -max(np.abs(row[1]).max() for row in maps)
    assert gate == (min(row[2].min() for row in maps), max(row[2].max() for row in maps))

    _, maps, labels = read_figure(figures[1], 4)
    wanted = [(2, 71, 72), (2, 0, 72), (15, 71, 960), (15, 0, 960)]
    assert len(maps) == len(wanted)
    for ours, label, (block, channel, count) in zip(maps, labels, wanted):
        assert label.startswith(f"block {block},") and label.endswith(f"channel {channel} of {count}")
        for drawn, theirs in zip(ours, expected[block - FIRST_BLOCK]):
            assert_close(drawn, theirs[channel])
    assert limits(figures[1], 4)[2] == (0, 1)


def step_in_torch(values, parameters, name, channel, padding):
    """A channel (h, w) behind a depthwise convolution and batch normalisation of ours."""
    torch = reference("torch")
    weight = torch.tensor(parameters[f"{name}.conv.weight"][channel : channel + 1])
    values = torch.nn.functional.conv2d(torch.from_numpy(values)[None, None], weight, padding=padding)[0, 0].numpy()
    gamma, beta, mean, variance = (
        parameters[f"{name}.bn.{kind}"][channel] for kind in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    return (values - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def test_both_ghost_modules_without_a_gate(folder, figures):
    torch = reference("torch")
    result = show(folder, "detection", "both", "--blocks", 5, 11, "--channels", 7, images=("wide.png",))
    assert result.returncode == 0, result.stderr
    image, maps, labels = read_figure(figures[0], 4)
    parameters = read_weights(folder / "detection.ckpt").weights
    heads = [label.split("\n")[:3] for label in labels]
    assert heads == [
        ["block 5, stride 8", "first Ghost module", "kernels 1x3, 3x1"],
        ["block 5, stride 16", "second Ghost module", "kernels 1x3, 3x1"],
        ["block 11, stride 16", "first Ghost module", "kernels 1x3, 3x1"],
        ["block 11, stride 32", "second Ghost module", "kernels 1x3, 3x1"],
    ]
    for (rows, columns, gate), number, size in zip(maps, range(4), (16, 8, 8, 4)):
        name = f"backbone.blocks.{(5, 11)[number // 2]}.ghost{1 + number % 2}.short_conv.2"
        assert_close(columns, step_in_torch(rows, parameters, name, 7, (1, 0)))
        resized = torch.nn.functional.interpolate(torch.from_numpy(columns)[None, None], (size, size), mode="bicubic")
        assert_close(gate, resized[0, 0].numpy())
    gates = np.concatenate([row[2].ravel() for row in maps])
    assert limits(figures[0], 4)[2] == (gates.min(), gates.max()) and gates.min() < 0
    assert image.shape == (128, 128, 3) and np.ptp(image[86:], (0, 1)).max() < 1e-6 < np.ptp(image[:86], (0, 1)).min()


def test_files_have_names_of_their_own_and_the_size_of_their_rows(folder, figures):
    result = show(folder, "segmentation", "files", "--blocks", 2, 3, images=("a.png", "b", "wide.png"))
    assert result.returncode == 0, result.stderr
    names = ["a.png", "a_2.png", "wide.png"]
    assert sorted(path.name for path in (folder / "files").iterdir()) == names
    assert [line for line in result.stdout.splitlines() if "drawn" in line] == [f"  drawn: files/{n}" for n in names]
    sizes = [Image.open(folder / "files" / name).size for name in names]
    assert sizes[:2] == [(1018, 512)] * 2  # labels and 4 columns, edges and 2 rows
    assert sizes[2][0] == 1018 and abs(sizes[2][1] - (100 + 2 * 200 * 64 / 96 + 12)) <= 1
    image = read_figure(figures[2], 4)[0]
    resized = Image.open(folder / "wide.png").resize((96, 64), Image.Resampling.BILINEAR)
    assert np.abs(image - np.asarray(resized) / 255).max() < 1e-6

    (folder / "files" / "a_2.png").write_text("mine")
    (folder / "files" / "a.png").unlink()
    result = show(folder, "segmentation", "files", images=("a.png", "b/a.png"))
    assert result.returncode == 2
    assert result.stderr == "error: files/a_2.png: exists; drawings are new files, --output_dir names another folder\n"
    assert (folder / "files" / "a_2.png").read_text() == "mine" and not (folder / "files" / "a.png").exists()


@pytest.mark.parametrize(
    ("task", "changes", "arguments", "message"),
    [
        ("segmentation", ["network.name=ghostnet_1x"], (), "the network has no DFC attention"),
        ("detection", ["network.dfc_blocks=[]"], (), "the network has no DFC attention"),
        (
            "segmentation",
            ["network.dfc_blocks=[2,9,4]"],
            ("--blocks", 1, 2, 99),
            "--blocks: no DFC attention in 1, 99; blocks with it: 2, 4, 9",
        ),
        ("detection", [], ("--channels", 0, 24), "--channels 0, 24: block 1 has channels 0 to 23"),
        ("segmentation", [], ("--channels", -1), "--channels -1: block 2 has channels 0 to 71"),
        ("segmentation", [], ("--channels", *range(8)), "--blocks and --channels: ask for 112 rows, a drawing has 100"),
        ("segmentation", [], ("--checkpoint_path", "a.onnx"), "a.onnx: an exported file does not show its attention"),
    ],
)
def test_mistakes_are_one_line(folder, task, changes, arguments, message):
    result = show(folder, task, "wrong", *arguments, changes=changes)
    assert result.returncode == 2 and result.stderr.startswith(f"error: {message}"), result.stderr
    assert result.stderr.count("\n") == 1 and not (folder / "wrong").exists()


@pytest.mark.parametrize(("kernel_size", "axes"), [((1, 7), "rows"), ((3, 1), "columns"), ((5, 5), "both axes")])
def test_a_kernel_tells_its_axes(kernel_size, axes):
    assert show_attention.describe_step(kernel_size).endswith(f" along {axes}")
