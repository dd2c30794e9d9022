"""Export: the file gives the network's outputs, and a wrong one is never left behind."""

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.deploy import compare_outputs, export
from src.errors import UserError
from src.ghostnetv2 import create_network


def test_mindir_gives_the_same_outputs(tmp_path):
    network = create_network("ghostnetv2_1x", num_classes=7)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if "moving" in parameter.name or ".bn." in parameter.name:
            parameter.set_data(Tensor(rng.uniform(0.5, 1.5, parameter.shape).astype(np.float32)))
    path = tmp_path / "network.mindir"
    assert export(network, path, "MINDIR", [(2, 3, 64, 96)]) < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["network.mindir"]
    x = Tensor(rng.standard_normal((2, 3, 64, 96)).astype(np.float32))
    loaded = nn.GraphCell(mindspore.load(str(path)))
    assert np.abs(loaded(x).asnumpy() - network(x).asnumpy()).max() < 1e-5


def test_a_difference_is_refused():
    a, b = Tensor(np.array([1.0, 2.0], np.float32)), Tensor(np.array([1.0, 2.1], np.float32))
    assert compare_outputs((a,), (a,), "x") == 0
    with pytest.raises(UserError, match=r"differs from the original by 0\.1"):
        compare_outputs((a,), (b,), "x")
    with pytest.raises(UserError, match="differs from the original by nan"):
        compare_outputs((a,), (a * float("nan"),), "x")


@pytest.mark.parametrize("file_format", ["ONNX", "AIR"])
def test_formats_that_are_not_possible(tmp_path, file_format):
    with pytest.raises(UserError, match=f"--file_format {file_format}: .*MINDIR"):
        export(nn.ReLU(), tmp_path / "a", file_format, [(1, 2)])
