"""MINDIR files: several outputs, and one line for what is no network for images."""

import numpy as np
import pytest
from helpers import normal
from mindspore import nn

from src.errors import UserError
from src.export.exported import open_exported
from src.export.mindir_file import write_mindspore


class TwoOutputs(nn.Cell):
    """Means and sums of the channels, as a tuple."""

    def construct(self, x):
        return x.mean((2, 3)), x.sum((2, 3, 1))


@pytest.mark.parametrize("batch", [2, None])
def test_mindir_file_with_several_outputs(tmp_path, batch):
    path = tmp_path / "two.mindir"
    write_mindspore(TwoOutputs(), path, "MINDIR", (3, 4, 6), batch, {})
    exported = open_exported(path)
    assert exported.input_shape == (batch, 3, 4, 6) and exported.output_shape == (batch, 3)
    images = normal(2, 3, 4, 6)
    means, sums = exported.run(images)
    assert np.allclose(means, images.mean((2, 3)), atol=1e-6) and np.allclose(sums, images.sum((1, 2, 3)), atol=1e-5)


def change_mindir(path, change):
    """Change a MINDIR file's graph by a function."""
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto.FromString(path.read_bytes())
    change(model.graph)
    path.write_bytes(model.SerializeToString())


def rename_node(graph):
    graph.node[0].op_type = "REF::nothing"


def unknown_operator(graph):
    graph.node[0].op_type = "Nothing"


def no_shape(graph):
    del graph.input[0].tensor[:]


def no_output_shape(graph):
    graph.output[0].ClearField("tensor")
    graph.output[0].ClearField("attr_info")


def integer_input(graph):
    graph.input[0].tensor[0].data_type = 6


def flat_input(graph):
    del graph.input[0].tensor[0].dims[2:]


def second_input(graph):
    graph.input.add().CopyFrom(graph.input[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_node, "MindSpore cannot read it: Load MindIR failed."),
        (unknown_operator, "MindSpore cannot run it: "),
        (no_shape, "is not a whole MINDIR file"),
        (no_output_shape, "is not a whole MINDIR file"),
        (integer_input, "takes no float32 2x3x4x6, a network for images float32 (N, C, H, W)"),
        (flat_input, "takes float32 2x3, a network for images float32 (N, C, H, W)"),
        (second_input, "has 2 inputs, a network for images has one"),
    ],
)
def test_a_foreign_mindir_file_is_one_line(tmp_path, capfd, change, message):
    path = tmp_path / "a.mindir"
    write_mindspore(nn.ReLU(), path, "MINDIR", (3, 4, 6), 2, {})
    change_mindir(path, change)
    capfd.readouterr()
    with pytest.raises(UserError) as error:
        open_exported(path).run(normal(2, 3, 4, 6))
    assert str(error.value).startswith(f"{path}: {message}") and "C++" not in str(error.value)
    assert capfd.readouterr().err == ""
