"""Networks whose outputs must be numbers: those of a diverged training give nan, and metrics that look like others."""

import numpy as np

from src.errors import UserError


class FiniteNetwork:
    """A network, called and asked as ever, that watches its outputs.

    Args:
        network: what `task.evaluate` and `task.predict` call.
        path: file with its weights, to be named in an error; None: nothing is raised.

    Attributes:
        is_finite: whether all outputs so far were.

    Raises:
        UserError: in a call, if an output is nan or inf.
    """

    def __init__(self, network, path=None):
        self.network, self.path, self.is_finite = network, path, True

    def __getattr__(self, name):
        return getattr(self.network, name)

    def set_train(self, mode=True):
        """Set the mode of the network."""
        self.network.set_train(mode)
        return self

    def __call__(self, images):
        outputs = self.network(images)
        for output in outputs if isinstance(outputs, tuple) else (outputs,):
            self.is_finite = self.is_finite and bool(np.isfinite(output.asnumpy()).all())
        if self.path is not None and not self.is_finite:
            raise UserError(f"{self.path}: its network gives nan or inf; the weights are of no use")
        return outputs
