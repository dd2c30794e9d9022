"""The segmenter as ONNX: its head against PyTorch, whole against the cell, and evaluated like the checkpoint."""

import json

import mindspore
import numpy as np
import pytest
from helpers import PROJECT, assert_close, call_here, normal, randomise, reference
from mindspore import Tensor
from PIL import Image
from segmentation.test_deeplabv3 import aspp_in_torch, head_in_torch

from src.config import load_config
from src.export.folding import fold_batch_norm
from src.segmentation.deeplabv3 import FullSizeLogits
from src.tasks import SCHEMAS, create_task
from src.weights import save_weights

CONFIG = PROJECT / "configs" / "segmentation" / "camvid.yaml"


def create(output_stride=16):
    return create_task(load_config(CONFIG, SCHEMAS, [("network.output_stride", output_stride, "test")]))


def run_onnx(task, cell, x, batch, softmax=False):
    """The only output of the file, and its name."""
    reference("onnx")
    from src.export.onnx_graph import build_onnx

    model = build_onnx(task.describe, fold_batch_norm(cell), x.shape[1:], batch, softmax)
    session = reference("onnxruntime").InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": x})
    return output, session.get_outputs()[0].name


@pytest.mark.parametrize(
    ("output_stride", "size", "batch", "winograd"),
    [(16, (64, 96), None, True), (8, (65, 41), 2, True), (32, (129, 70), None, False)],
    ids=str,
)
def test_logits_equal_pytorch(output_stride, size, batch, winograd, monkeypatch):
    torch = reference("torch")
    reference("onnx")
    if winograd:  # whatever the size
        monkeypatch.setattr("src.export.onnx_graph.WINOGRAD_PRODUCTS", 0)
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    task = create(output_stride)
    network = randomise(task.build_network())
    x = normal(2, 3, *size)
    features = torch.from_numpy(network.backbone(Tensor(x))[-1].asnumpy())
    small = head_in_torch(network.head, aspp_in_torch(network.aspp, features, task.config.network.aspp_dilations))
    expected = torch.nn.functional.interpolate(small, size, mode="bilinear", align_corners=False)
    logits, name = run_onnx(task, FullSizeLogits(network), x, batch)
    assert name == "logits"
    assert_close(logits, expected.numpy())
    probabilities, name = run_onnx(task, FullSizeLogits(network), x, batch, softmax=True)
    assert name == "probabilities"
    assert_close(probabilities, expected.softmax(1).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(33, 160), (100, 75), (360, 480)], ids=str)
def test_other_sizes_equal_the_cell(output_stride, size):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    task = create(output_stride)
    cell, x = FullSizeLogits(randomise(task.build_network())).set_train(False), normal(1, 3, *size)
    assert_close(run_onnx(task, cell, x, 1)[0], cell(Tensor(x)).asnumpy())


@pytest.mark.long
def test_evaluation_of_the_file_equals_that_of_the_checkpoint(tmp_path):
    """Random weights are right in some pixels of random masks."""
    reference("onnx"), reference("onnxruntime")
    generator = np.random.default_rng(0)
    for kind, shape, high in (("images", (48, 64, 3), 256), ("annotations", (48, 64), 12)):
        folder = tmp_path / "data" / kind / "validation"
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(generator.integers(0, high, shape, np.uint8)).save(folder / f"{number}.png")
    network = randomise(create().build_network())
    save_weights(network, tmp_path / "net.ckpt")
    sizes = ("data.base_size=[64,48]", "data.image_size=[48,64]", "runtime.graph_mode=false")
    config = ("--config", CONFIG, "--data_url", "data", *sizes)

    def evaluate(name, *arguments):
        command = ("--checkpoint_path", name, *arguments, "--output", f"{name}.json")
        result = call_here("eval.py", *command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return json.loads((tmp_path / f"{name}.json").read_text())

    expected = evaluate("net.ckpt", *config)
    assert 0.005 < expected["mean_iou"] < 0.5, expected
    files = ("--file_format", "ONNX", "--file_name", "net")
    result = call_here("export.py", "--checkpoint_path", "net.ckpt", *config, *files, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert evaluate("net.onnx") == pytest.approx(expected, abs=1e-4)
