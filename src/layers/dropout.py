"""Dropout whose masks are reproducible: on every device, in every process, and in a run that is resumed.

`nn.Dropout` draws from a state inside the device's kernel, which can neither be saved nor set. Here the
state is a parameter, and the numbers come from plain operations on integers that fit int32: the generator of
Wichmann and Hill, "Algorithm AS 183", Applied Statistics 31 (1982), three congruential generators whose
scaled sum, modulo one, is uniform with a period of 7e12. Several of them run side by side.
"""

import math

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

MULTIPLIERS = (171, 172, 170)
MODULI = (30269, 30307, 30323)
WIDTH = 1024  # generators of a dropout


@ops.constexpr
def _jumps(first, stride, batch, rows):
    """Compute int32 (3, batch * rows, 1) that takes a state forward to the numbers of each sample.

    Sample i of the batch has `rows` steps from (first + i * stride) * rows + 1 on.
    """
    steps = [(first + sample * stride) * rows + row + 1 for sample in range(batch) for row in range(rows)]
    jumps = [[pow(a, step, m) for step in steps] for a, m in zip(MULTIPLIERS, MODULI)]
    return Tensor(np.array(jumps, np.int32)[:, :, None])


@mindspore.jit_class
class UniformGenerator:
    """Uniform random numbers in a compiled graph, from a state that can be saved.

    On several processes all states are equal: a draw goes over the samples of all, of which this process has every
    `count`-th one, as the data pipeline deals them out. So the numbers of a sample depend on its place in the
    global batch alone.

    Args:
        seed: whatever `numpy.random.default_rng` takes.
        name: of the state.
        rank, count: place of this process among those of the run, and their number.
        width: how many run side by side, each of which gives a sample at least one number.

    Attributes:
        state: Parameter, int32 (3, 1, width).
    """

    def __init__(self, seed, name, rank, count, width):
        self.rank, self.ranks, self.width = rank, count, width
        rng = np.random.default_rng(seed)
        state = np.stack([rng.integers(1, modulus, (1, width)) for modulus in MODULI]).astype(np.int32)
        self.state = Parameter(Tensor(state), name=name, requires_grad=False)
        self.moduli = Tensor(np.array(MODULI, np.int32)[:, None, None])
        self.periods = Tensor(np.array(MODULI, np.float32)[:, None, None])

    def draw(self, batch, count):
        """Draw float32 (batch, count), uniform in [0, 1)."""
        rows = (count + self.width - 1) // self.width
        # (3, 1, width) x (3, batch * rows, 1) -> (3, batch * rows, width); the products stay below 2**31
        numbers = self.remainder(self.state * _jumps(self.rank, self.ranks, batch, rows))
        ops.assign(self.state, self.remainder(self.state * _jumps(self.ranks * batch * rows - 1, 1, 1, 1)))
        parts = numbers.astype(mindspore.float32) / self.periods
        total = parts[0] + parts[1] + parts[2]
        return (total - ops.floor(total)).reshape(batch, -1)[:, :count]  # (batch * rows, width) -> (batch, count)

    def remainder(self, numbers):
        """Divide int32 (3, ...) from 0 to 2**31 by the moduli: what is left, exactly.

        Not by `%`, which MindSpore computes in float32 on GPU. Here only the quotient is, which can be one off.
        """
        quotients = ops.floor(numbers.astype(mindspore.float32) / self.periods).astype(mindspore.int32)
        rest = numbers - quotients * self.moduli
        rest = rest + self.moduli * (rest < 0).astype(mindspore.int32)
        return rest - self.moduli * (rest >= self.moduli).astype(mindspore.int32)


class Dropout(nn.Cell):
    """In training, zero each value with probability `p` and scale the others by 1 / (1 - p); shape (N, ...)."""

    width = WIDTH

    def __init__(self, p):
        super().__init__()
        self.p = p
        self.seed((0, 0), "dropout", 0, 1)

    def seed(self, seed, name, rank, count):
        """Start the masks anew; the arguments are those of `UniformGenerator`."""
        self.generator = UniformGenerator(seed, name, rank, count, self.width)

    def construct(self, x):
        if not self.training:
            return x
        kept = self.generator.draw(x.shape[0], math.prod(x.shape[1:])).reshape(x.shape) >= self.p
        return x * ops.stop_gradient(kept.astype(x.dtype)) / (1 - self.p)


class DropPath(Dropout):
    """Stochastic depth: in training, zero the whole of an image with probability `p`; shape (N, ...).

    It ends the residual branch of a block, of which then the shortcut is left. Source: Huang et al., "Deep Networks
    with Stochastic Depth", ECCV 2016; as in timm's `DropPath`, images that stay are scaled by 1 / (1 - p) in training,
    and not by 1 - p in evaluation.

    Args:
        p: probability.
        index: of the block, by which masks differ from other blocks' until `seed` is called.
    """

    width = 1  # a number an image

    def __init__(self, p, index):
        super().__init__(p)
        self.seed((0, index), f"drop_path_{index}", 0, 1)

    def construct(self, x):
        if not self.training:
            return x
        kept = (self.generator.draw(x.shape[0], 1) >= self.p).astype(x.dtype) / (1 - self.p)
        kept = ops.broadcast_to(kept.reshape((-1,) + (1,) * (x.ndim - 1)), x.shape)  # (N, 1) -> (N, ...)
        return x * ops.stop_gradient(kept)


def build_drop_path(plan):
    """Build the `DropPath` of a block's plan; None where nothing is dropped."""
    return DropPath(plan.drop_path, plan.index) if plan.drop_path > 0 else None
