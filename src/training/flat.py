"""Many arrays as one vector, so that an operation on all of them is one kernel instead of hundreds."""

import mindspore
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, mint, nn, ops

from src.layers.blocks import is_for

MULTIPLE = 1024  # a vector's length is one of this; it ends in zeros
GROUP = 64  # arrays that are joined or split at once


class FlatArrays(nn.Cell):
    """The parameters of a list, float32, one behind the other in a vector.

    Args:
        parameters: list of Parameter, at least one.

    Attributes:
        parameters: the same.
        shapes, sizes, starts: of each, and where it begins in the vector.
        length: of the vector.
    """

    def __init__(self, parameters):
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.shapes = tuple(tuple(parameter.shape) for parameter in parameters)
        self.sizes = tuple(int(parameter.size) for parameter in parameters)
        *starts, end = np.cumsum([0, *self.sizes]).tolist()
        self.starts = tuple(starts)
        self.length = -(-end // MULTIPLE) * MULTIPLE
        self.filling = Tensor(np.zeros(self.length - end, np.float32)) if self.length > end else None
        self.groups = tuple(range(0, len(parameters), GROUP))
        self.group_sizes = tuple(sum(self.sizes[first : first + GROUP]) for first in self.groups)
        self.group_sizes += (self.length - end,) * (self.length > end)
        self.hyper_map = ops.HyperMap()

    def join(self, tensors):
        """Join tensors of the parameters' shapes into a vector, in a graph."""
        pieces = self.hyper_map(_flatten, tensors)
        joined = ()
        for first in self.groups:
            joined += (ops.concat(pieces[first : first + GROUP]),)
        if self.filling is not None:
            joined += (self.filling,)
        return ops.concat(joined)

    def read(self):
        """Join the parameters themselves, in a graph."""
        return self.join(self.parameters)

    def write(self, vector):
        """Set the parameters to a vector, in a graph."""
        return self.hyper_map(_assign_shaped, self.parameters, self.shapes, self.split(vector))

    def split(self, vector):
        """Split a vector into those of the parameters, in a graph."""
        if not is_for("Ascend"):  # the others cannot split at any place
            return self.hyper_map(ops.partial(_slice, vector), self.starts, self.sizes)
        pieces = ()
        for first, group in zip(self.groups, mint.split(vector, self.group_sizes)):
            pieces += tuple(mint.split(group, self.sizes[first : first + GROUP]))
        return pieces

    def new_vector(self, name, value) -> Parameter:
        """Make a vector as a parameter, all of whose numbers are `value`."""
        return Parameter(Tensor(np.full(self.length, value, np.float32)), name=name, requires_grad=False)

    def copy(self, name) -> Parameter:
        """Make a vector as a parameter that begins as the parameters are."""
        vector = self.new_vector(name, 0.0)
        self.refresh(vector)
        return vector

    def refresh(self, vector) -> None:
        """Set a vector to the parameters as they are."""
        vector.set_data(Tensor(self.pack({parameter.name: parameter.asnumpy() for parameter in self.parameters})))

    def pack(self, arrays):
        """Join {name of parameter: array}, as a NumPy array (length,)."""
        vector = np.zeros(self.length, np.float32)
        for parameter, start, size in zip(self.parameters, self.starts, self.sizes):
            vector[start : start + size] = np.asarray(arrays[parameter.name]).ravel()
        return vector

    def unpack(self, vector) -> dict:
        """Split a NumPy array (length,) into {name of parameter: array}."""
        pieces = zip(self.parameters, self.starts, self.sizes, self.shapes)
        return {p.name: vector[start : start + size].reshape(shape) for p, start, size, shape in pieces}


_flatten = ops.MultitypeFuncGraph("flatten")
_slice = ops.MultitypeFuncGraph("slice")
_assign_shaped = ops.MultitypeFuncGraph("assign_shaped")


@_flatten.register("Tensor")
def _flatten_tensor(tensor):
    return tensor.reshape(-1)


@_slice.register("Tensor", "Number", "Number")
def _slice_vector(vector, start, size):
    return ops.slice(vector, (start,), (size,))


@_assign_shaped.register("Tensor", "Tuple", "Tensor")
def _assign_piece(parameter, shape, piece):
    return ops.assign(parameter, piece.reshape(shape))


def squared_norm(vector):
    """Sum the squares of a vector whose length is a multiple of `MULTIPLE`, in two steps, which keeps it accurate."""
    return ops.square(vector).reshape(-1, MULTIPLE).sum(1).sum()


def choose(condition, new, old):
    """Give `new` where a scalar condition holds, else `old`, which may hold nan; None: `new`."""
    return new if condition is None else ops.select(condition, new, old)


def scalar(value):
    """Make a float32 tensor of one number."""
    return Tensor(value, mindspore.float32)
