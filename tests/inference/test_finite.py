"""A network that gives nan or inf is found out, in whatever output and batch."""

import numpy as np
import pytest
from mindspore import Tensor, nn

from src.classification.settings import ClassificationConfig
from src.errors import UserError
from src.inference.finite import FiniteNetwork
from src.inference.graph_cache import CachedNetwork
from src.inference.loading import cache_graphs


class Recorded:
    """Gives the same outputs whatever it sees."""

    input_size = (4, 6)

    def __init__(self, *outputs):
        self.outputs, self.mode = outputs, None

    def set_train(self, mode):
        self.mode = mode

    def __call__(self, images):
        return self.outputs if len(self.outputs) > 1 else self.outputs[0]


def of(*values):
    return Tensor(np.array(values, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_one_output_that_is_no_number_is_an_error(bad, place):
    outputs = [of(1.0, 2.0), of(3.0)]
    outputs[place] = of(1.0, bad)
    with pytest.raises(UserError, match=r"runs/best\.ckpt: its network gives nan or inf"):
        FiniteNetwork(Recorded(*outputs), "runs/best.ckpt")(None)
    watched = FiniteNetwork(Recorded(*outputs))
    assert watched.is_finite and watched(None) == tuple(outputs) and not watched.is_finite
    watched.network.outputs = (of(1.0),)
    assert np.array_equal(watched(None).asnumpy(), [1.0]) and not watched.is_finite  # once is enough


def test_it_is_asked_and_set_like_the_network():
    network = Recorded(of(1.0))
    watched = FiniteNetwork(network, "a.ckpt")
    assert watched.input_size == (4, 6)
    assert watched.set_train(False) is watched and network.mode is False
    assert np.array_equal(watched(None).asnumpy(), [1.0])
    assert getattr(FiniteNetwork(nn.ReLU()), "input_size", None) is None


def test_its_graphs_are_kept():
    kept = cache_graphs(FiniteNetwork(nn.ReLU(), "a.ckpt"), ClassificationConfig(), "CPU")
    assert isinstance(kept, FiniteNetwork) and kept.path == "a.ckpt" and isinstance(kept.network, CachedNetwork)
