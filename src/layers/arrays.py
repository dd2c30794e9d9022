"""Networks of MindSpore, called with arrays."""

from mindspore import Tensor


class ArrayNetwork:
    """Array float32 (N, 3, H, W) -> list of arrays.

    Args:
        network: what `task.evaluate` takes.

    Attributes:
        input_size: (height, width) that it was made for; None if any will do.
    """

    def __init__(self, network):
        self.network = network.set_train(False)
        self.input_size = getattr(network, "input_size", None)

    def __call__(self, images):
        outputs = self.network(Tensor(images))
        return [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
