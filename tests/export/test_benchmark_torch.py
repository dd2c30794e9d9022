"""The PyTorch modules that plain ONNX files are made of, against our own networks of the same weights."""

import mindspore
import pytest
from helpers import PROJECT, assert_close, normal, randomise, reference
from mindspore import Tensor

from scripts import benchmark
from src.config import load_config
from src.tasks import SCHEMAS, create_task

NAME = "ghostnetv2_1x"


@pytest.mark.parametrize(
    ("task", "config", "settings", "size"),
    [
        ("detection", "bccd", {"data.image_size": 65}, 65),
        ("segmentation", "camvid", {"network.output_stride": 8}, 48),
        ("segmentation", "camvid", {"network.output_stride": 32}, 65),
    ],
    ids=str,
)
def test_modules_equal_the_cells(task, config, settings, size, graph_mode):
    torch, _ = reference("torch"), reference("timm")
    from scripts.benchmark_torch import build_torch

    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it
    overrides = [(key, value, "test") for key, value in settings.items()]
    chosen = create_task(load_config(PROJECT / "configs" / task / f"{config}.yaml", SCHEMAS, overrides))
    network = randomise(chosen.build_network())
    cell = chosen.build_export_network(network).set_train(False)
    x = normal(2, 3, size, size)
    with torch.no_grad():
        actual = build_torch(task, NAME, cell)(torch.from_numpy(x))
    expected = cell(Tensor(x))
    pairs = zip(actual, expected) if task == "detection" else [(actual, expected)]
    for ours, theirs in pairs:
        assert_close(ours.numpy(), theirs.asnumpy())


def test_plain_files_are_for_tasks_on_timms_ghostnets():
    for task in ("detection", "segmentation"):
        assert benchmark.has_timm("plain_onnx", NAME, task) and not benchmark.has_timm("timm_onnx", NAME, task)
        assert not benchmark.has_timm("plain_dynamo_onnx", "mobilenetv2_1x", task)
        assert not benchmark.has_timm("plain_onnx", "ghostnetv2_nose_1x", task)
    assert benchmark.has_timm("timm_onnx", NAME, "classification")
    assert not benchmark.has_timm("plain_onnx", NAME, "classification")
