"""The detector as ONNX: against PyTorch with timm's backbone, against the cell, and evaluated like the checkpoint."""

import json

import mindspore
import numpy as np
import pytest
from detection.coco_files import CLASSES, CONFIG, SIZE, content, create, write_split
from detection.test_yolov3 import torch_outputs
from helpers import call_here, copy_weights, normal, random_timm, randomise, reference
from mindspore import Tensor

from src.detection.anchors import ANCHORS, place_anchors, scale_anchors
from src.detection.yolov3 import MAX_LOG_GROWTH, WithDecoding, YOLOv3
from src.export.folding import fold_batch_norm
from src.ghostnetv2 import create_network
from src.weights import save_weights

TOLERANCE = 1e-4  # of the outputs' range


def detector(**options):
    """A detector of random weights."""
    backbone = create_network("ghostnetv2_1x", features_only=True, **options)
    return randomise(YOLOv3(backbone, num_classes=len(CLASSES), channels=96))


def run_onnx(cell, x, batch):
    """Outputs of the file by name."""
    reference("onnx")
    from src.export.onnx_graph import build_onnx

    describe = create("nowhere").describe
    model = build_onnx(describe, fold_batch_norm(cell), x.shape[1:], batch)
    session = reference("onnxruntime").InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([port.name for port in session.get_outputs()], session.run(None, {"image": x})))


def timm_maps(model, x, stage_ends):
    """What timm's bottlenecks of these numbers give, as arrays."""
    x, maps = model.act1(model.bn1(model.conv_stem(x))), []
    for index, block in enumerate(block for stage in model.blocks for block in stage):
        x = block(x)
        if index in stage_ends:
            maps.append(x.numpy())
    return maps


def decode(raw, anchors, size):
    """Boxes, objectness and class scores from maps of raw predictions, by PyTorch."""
    torch = reference("torch")
    corners, sizes, strides = map(torch.from_numpy, place_anchors(anchors, size))
    rows = [torch.from_numpy(x).permute(0, 2, 3, 1).reshape(len(x), -1, 5 + len(CLASSES)) for x in raw]
    rows = torch.cat(rows, 1)
    centres = corners + rows[..., :2].sigmoid() * strides
    halves = sizes / 2 * rows[..., 2:4].clamp(max=MAX_LOG_GROWTH).exp()
    scores = rows[..., 4:].sigmoid()
    return torch.cat((centres - halves, centres + halves), -1), scores[..., 0], scores[..., 1:]


@pytest.mark.parametrize(("size", "batch"), [(64, None), (65, 2)])
def test_outputs_equal_pytorch(size, batch):
    torch = reference("torch")
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    model = random_timm("ghostnetv2_100", drop_rate=0.0)
    weights = {p.name: p for p in copy_weights(model, create_network("ghostnetv2_1x", dropout=0.0)).get_parameters()}
    network, anchors, x = detector(), scale_anchors(ANCHORS, size / 320), normal(2, 3, size, size)
    for parameter in network.backbone.get_parameters():
        parameter.set_data(weights[parameter.name.removeprefix("backbone.")])
    with torch.no_grad():
        maps = timm_maps(model, torch.from_numpy(x), network.backbone.stage_ends)[-3:]
    expected = decode(torch_outputs(network, maps), anchors, size)
    actual = run_onnx(WithDecoding(network, anchors, size), x, batch)
    assert list(actual) == list(create("nowhere").export_signature().output_names)
    for ours, theirs in zip(actual.values(), expected):
        assert ours.shape == tuple(theirs.shape)
        assert np.abs(ours - theirs.numpy()).max() <= TOLERANCE * np.ptp(theirs.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("size", [33, 100, 320, 416])
@pytest.mark.parametrize("options", [{}, {"width": 0.5}, {"dfc_up_sampling": "bilinear"}], ids=str)
def test_other_sizes_and_backbones_equal_the_cell(size, options):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    network = detector(**options)
    cell, x = WithDecoding(network, scale_anchors(ANCHORS, size / 320), size).set_train(False), normal(1, 3, size, size)
    for ours, theirs in zip(run_onnx(cell, x, 1).values(), cell(Tensor(x))):
        assert np.abs(ours - theirs.asnumpy()).max() <= 5 * TOLERANCE * np.ptp(theirs.asnumpy())  # thousands of places


@pytest.mark.long
def test_evaluation_of_the_file_equals_that_of_the_checkpoint(tmp_path):
    """A random detector's own detections are the objects that it is measured on: its precision is in between."""
    reference("onnx"), reference("onnxruntime")
    write_split(tmp_path / "data", "val2017")
    save_weights(detector(), tmp_path / "net.ckpt")
    settings = [f"network.num_classes={len(CLASSES)}", f"data.image_size={SIZE}", "runtime.graph_mode=false"]
    config = ("--config", CONFIG, "--data_url", "data", *settings)
    # few detections: among many, scores that hardly differ would change places by rounding
    thresholds = ("inference.objectness=0", "inference.score=0", "inference.detections=20", "--output_dir", "details")

    def evaluate(name, *arguments):
        command = ("--checkpoint_path", name, *arguments, *thresholds, "--output", f"{name}.json")
        result = call_here("eval.py", *command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        metrics = json.loads((tmp_path / f"{name}.json").read_text())
        (tmp_path / f"{name}.json").unlink()
        return {key: value for key, value in metrics.items() if key.startswith("A")}

    evaluate("net.ckpt", *config)
    found = json.loads((tmp_path / "details" / "detections.json").read_text())
    objects = [
        {**detection, "id": index, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for index, detection in enumerate(found[::3])
    ]
    write_split(tmp_path / "data", "val2017", {**content(), "annotations": objects})
    expected = evaluate("net.ckpt", *config)
    assert 0.01 < expected["AP"] < 0.9
    files = ("--file_format", "ONNX", "--file_name", "net", "--batch_size", 2)
    result = call_here("export.py", "--checkpoint_path", "net.ckpt", *config, *files, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert evaluate("net.onnx") == pytest.approx(expected, abs=1e-4)
