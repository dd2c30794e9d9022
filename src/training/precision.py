"""Mixed precision: convolutions in float16, normalisation, loss and weights in float32."""

import mindspore
import numpy as np
from mindspore import Tensor, amp, nn, ops

from src.errors import UserError
from src.layers.blocks import BiasedConvolution, DilatedConvolution
from src.layers.sync_batch_norm import SyncBatchNorm2d


def check_precision(level, device_target) -> None:
    """Try a level of mixed precision with one convolution, forward and backward.

    Raises:
        UserError: if the device has no kernels for it.
    """
    if level == "O0":
        return
    network = nn.SequentialCell(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    mixed = nn.SequentialCell(mix_precision(network, level, device_target), nn.Flatten()).set_train()
    images, labels = Tensor(np.ones((2, 2, 4, 4), np.float32)), Tensor(np.zeros(2, np.int32))
    loss = nn.WithLossCell(mixed, nn.CrossEntropyLoss())
    try:
        ops.value_and_grad(loss, None, loss.trainable_params())(images, labels)[0].asnumpy()
    except (RuntimeError, TypeError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip("- ") and not line.startswith("- ")]
        reason = lines[0].strip() if lines else type(error).__name__  # without MindSpore's rules and headings
        raise UserError(f"precision.amp={level} cannot be computed on {device_target}: {reason}; allowed: O0") from None


def mix_precision(network, level, device_target):
    """Put float16 or bfloat16 inside a network, as MindSpore's levels say; it still takes and returns float32.

    Args:
        network: is changed in place.
        level: `O0` changes nothing; `O2` casts all cells but normalisation; `O3` casts these as well in MindSpore,
            but not here, where it is the same as `O2`; `bf16` is `O2` with bfloat16; `auto` casts by operator:
            convolutions and matrix products.
        device_target: 'Ascend', 'GPU' or 'CPU'. On GPU two kinds of convolutions stay in float32: dilated ones, which
            MindSpore has in nothing else, so that a network that has any takes `O2` for `auto`; and those with a bias,
            which MindSpore 2.10 adds along a wrong axis in float16, where it has put channels last.
    """
    if level == "O0":
        return network
    has_dilated = any(isinstance(cell, DilatedConvolution) for _, cell in network.cells_and_names())
    if level == "auto" and not (device_target == "GPU" and has_dilated):
        return amp.auto_mixed_precision(network, "auto")
    full = [*amp.get_black_list(), SyncBatchNorm2d]
    if device_target == "GPU":
        full += [DilatedConvolution, BiasedConvolution]
    dtype = mindspore.float16
    if level == "bf16":
        dtype = mindspore.bfloat16
        full.append(nn.AvgPool2d)  # whose gradient Ascend does not have in bfloat16
    return amp.custom_mixed_precision(network, black_list=full, dtype=dtype)
