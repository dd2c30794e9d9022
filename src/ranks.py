"""The processes of a data-parallel run, and what they do together: sums, means, waiting for each other.

MindSpore is imported inside the functions, so that the environment can be set before it loads.
"""

import os
from dataclasses import dataclass

import numpy as np

LIMB = 20  # bits of a whole number that float32 still sums exactly over 16 processes


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of the run.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, values):
        """Sum an array over all processes.

        Whole numbers are exact below 2**60; others keep about 48 bits. The devices' common ground is float32, so
        values travel in parts.

        Args:
            values: integer or float array, of the same shape on each process.

        Returns:
            The sum, the same on each process.
        """
        if self.count == 1:
            return values
        if np.issubdtype(values.dtype, np.integer):
            limbs = [_all_reduce(values >> shift & (1 << LIMB) - 1) for shift in (0, LIMB)]
            limbs.append(_all_reduce(values >> 2 * LIMB))
            return sum(limb.astype(np.int64) << shift for limb, shift in zip(limbs, (0, LIMB, 2 * LIMB)))
        high = values.astype(np.float32)
        return _all_reduce(high) + _all_reduce(values - high)

    def average(self, parameters) -> None:
        """Set each of a list of float32 parameters to its mean over all processes."""
        if self.count == 1 or not parameters:
            return
        from mindspore import Tensor, ops

        values = [parameter.asnumpy() for parameter in parameters]
        total = ops.AllReduce()(Tensor(np.concatenate([value.ravel() for value in values]))).asnumpy()
        ends = np.cumsum([value.size for value in values])[:-1]
        for parameter, value, part in zip(parameters, values, np.split(total / np.float32(self.count), ends)):
            parameter.set_data(Tensor(part.reshape(value.shape)))

    def wait(self) -> None:
        """Return once all processes of the run have come here."""
        self.sum(np.zeros(1, np.int64))

    def agree(self, values) -> bool:
        """Tell whether an integer array is the same on all processes, once all of them have come here."""
        expected = self.sum(values if self.is_main else np.zeros_like(values))
        return not self.sum(np.array([(values != expected).any()], np.int64)).any()


def _all_reduce(part):
    """Sum an array over all processes in float32; the result is float64."""
    from mindspore import Tensor, ops

    return ops.AllReduce()(Tensor(part.astype(np.float32))).asnumpy().astype(np.float64)


def join_ranks() -> Ranks:
    """Find this process's place; where `msrun` launched it, start MindSpore's communication."""
    if "MS_ROLE" not in os.environ:
        return Ranks()
    import mindspore
    from mindspore.communication import GlobalComm, get_group_size, get_rank, init

    if not GlobalComm.INITED:
        init()
    ranks = Ranks(get_rank(), get_group_size())
    mindspore.set_auto_parallel_context(
        parallel_mode=mindspore.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=ranks.count
    )
    return ranks
