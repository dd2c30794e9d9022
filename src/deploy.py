"""Export of a trained network to a file that runs without this project."""

import mindspore
import numpy as np
from mindspore import Tensor, nn

from src.checkpoint import atomic_path
from src.errors import UserError

FILE_FORMATS = ("MINDIR", "ONNX", "AIR")
TOLERANCE = 1e-5  # of the largest output


def export(network, path, file_format, input_shapes) -> float:
    """Write `network` to `path`, load the file back and compare its outputs on random input.

    Args:
        network: nn.Cell from float32 tensors to one tensor or a tuple of them.
        path: file to write; it appears only once the check has passed.
        file_format: one of `FILE_FORMATS`.
        input_shapes: shape of each input, batch included.

    Returns:
        Largest difference between the file's and the network's outputs.

    Raises:
        UserError: if this format is not possible here, or the file disagrees with the network.
    """
    if file_format != "MINDIR":
        reasons = {"AIR": "needs an Ascend device", "ONNX": "MindSpore's exporter does not support this network"}
        raise UserError(f"--file_format {file_format}: {reasons[file_format]}; MINDIR is possible here")
    network.set_train(False)
    generator = np.random.default_rng(0)
    inputs = [Tensor(generator.standard_normal(shape).astype(np.float32)) for shape in input_shapes]
    with atomic_path(path, ".mindir") as temporary:
        mindspore.export(network, *inputs, file_name=str(temporary), file_format=file_format)
        temporary.chmod(0o644)  # MindSpore makes it read-only
        loaded = nn.GraphCell(mindspore.load(str(temporary)))
        return compare_outputs(_as_tuple(network(*inputs)), _as_tuple(loaded(*inputs)), path)


def compare_outputs(expected, actual, path) -> float:
    """Largest difference between two tuples of tensors.

    Raises:
        UserError: if it is more than `TOLERANCE` of the largest value.
    """
    pairs = [(ours.asnumpy(), theirs.asnumpy()) for ours, theirs in zip(expected, actual)]
    difference = float(np.max([np.abs(ours - theirs).max() for ours, theirs in pairs]))
    scale = max(1.0, *(float(np.abs(ours).max()) for ours, _ in pairs))
    if not difference <= TOLERANCE * scale:  # nan fails too
        raise UserError(f"{path}: not written: the exported network differs from the original by {difference:.3g}")
    return difference


def _as_tuple(outputs) -> tuple:
    return outputs if isinstance(outputs, tuple) else (outputs,)
