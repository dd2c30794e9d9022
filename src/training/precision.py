"""Mixed precision: convolutions in float16, normalisation, loss and weights in float32."""

import mindspore
import numpy as np
from mindspore import Tensor, amp, nn, ops

from src.errors import UserError
from src.layers.sync_batch_norm import SyncBatchNorm2d


def check_precision(level, device_target) -> None:
    """Try a level of mixed precision with one convolution, forward and backward.

    Raises:
        UserError: if the device has no kernels for it.
    """
    if level == "O0":
        return
    network = nn.SequentialCell(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    mixed = nn.SequentialCell(mix_precision(network, level), nn.Flatten()).set_train()
    images, labels = Tensor(np.ones((2, 2, 4, 4), np.float32)), Tensor(np.zeros(2, np.int32))
    loss = nn.WithLossCell(mixed, nn.CrossEntropyLoss())
    try:
        ops.value_and_grad(loss, None, loss.trainable_params())(images, labels)[0].asnumpy()
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"precision.amp={level} cannot be computed on {device_target}: {reason}; allowed: O0") from None


def mix_precision(network, level):
    """Put float16 inside a network, as MindSpore's levels say; it still takes and returns float32.

    Args:
        network: is changed in place.
        level: `O0` changes nothing; `O2` casts all cells but normalisation; `O3` casts these as well in MindSpore,
            but not here, where it is the same as `O2`; `auto` casts by operator: convolutions and matrix products.
    """
    if level == "O0":
        return network
    if level == "auto":
        return amp.auto_mixed_precision(network, "auto")
    return amp.custom_mixed_precision(
        network, black_list=[*amp.get_black_list(), SyncBatchNorm2d], dtype=mindspore.float16
    )
