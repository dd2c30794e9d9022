"""Optimizers on a vector of all weights, and which of these weight decay is for.

RMSProp is that of the authors' training script, timm 0.3.2. All are plain operations, which give the same bits in every
process: MindSpore's RMSProp kernel does not on CPU, its Adam kernel makes no such promise. On a vector of all weights
an update is a few kernels, not some for each array.
"""

import mindspore
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.training.flat import FlatArrays, choose, scalar


def decays(parameter, settings) -> bool:
    """Whether weight decay applies: to weights; to biases and batch normalisation with `decay_all` only."""
    return settings.weight_decay > 0 and (settings.decay_all or len(parameter.shape) > 1)


def build_optimizer(parameters, rates, settings, factors=None):
    """Build the optimizer of some settings.

    `sgd` couples weight decay to the gradient and `adamw` does not, both as PyTorch's do; `rmsprop` is
    TensorFlow's, with coupled decay.

    Args:
        parameters: to train.
        rates: learning rate of each update.
        settings: `OptimizerSettings`.
        factors: {name of a parameter: factor on its learning rate} of those whose factor is not 1.
    """
    return OPTIMIZERS[settings.name](list(parameters), rates, settings, factors or {})


class Optimizer(nn.Cell):
    """What the optimizers have in common; each has a `step` of its own.

    Args:
        parameters: to train.
        rates: learning rate of each update.
        settings: `OptimizerSettings`.
        factors: see `build_optimizer`.

    Attributes:
        flat: `FlatArrays` of the parameters.
        weights: a copy of the parameters as a vector, which is changed with them; see `refresh`.
        global_step: count of updates, made and skipped.
        vectors, numbers: the optimizer's state besides, which a skipped update leaves as it is.
    """

    def __init__(self, parameters, rates, settings, factors):
        super().__init__(auto_prefix=False)
        self.flat = FlatArrays(parameters)
        self.weights = self.flat.copy("weights")
        self.rates = Parameter(Tensor(rates, mindspore.float32), name="learning_rate", requires_grad=False)
        self.global_step = Parameter(Tensor([0], mindspore.int32), name="global_step", requires_grad=False)
        self.weight_decay = scalar(settings.weight_decay)
        decayed = [decays(parameter, settings) for parameter in parameters]
        self.decayed = None
        if any(decayed):
            ones = {p.name: np.full(p.shape, decay, np.float32) for p, decay in zip(parameters, decayed)}
            self.decayed = Parameter(Tensor(self.flat.pack(ones)), name="decayed", requires_grad=False)
        self.factors = None
        if any(parameter.name in factors for parameter in parameters):
            values = {p.name: np.full(p.shape, factors.get(p.name, 1.0), np.float32) for p in parameters}
            self.factors = Parameter(Tensor(self.flat.pack(values)), name="rate_factors", requires_grad=False)
        self.vectors, self.numbers = (), ()
        self.build_state(settings)
        self.vectors, self.numbers = ParameterTuple(self.vectors), ParameterTuple(self.numbers)

    def construct(self, gradient, finite):
        """Change the weights by a gradient (L,), unless `finite` is False; None means that it is.

        Returns:
            The new weights (L,).
        """
        rate = ops.gather(self.rates, self.global_step, 0)  # (1,)
        ops.assign_add(self.global_step, 1)
        if self.factors is not None:
            rate = rate * self.factors
        fresh, vectors, numbers = self.step(rate, self.weights, gradient)
        for old, new in zip(self.vectors + self.numbers, vectors + numbers):
            ops.assign(old, choose(finite, new, old))
        weights = ops.assign(self.weights, choose(finite, fresh, self.weights))
        self.flat.write(weights)
        return weights

    def refresh(self) -> None:
        """Take over parameters that were set from outside."""
        self.flat.refresh(self.weights)

    def with_decay(self, gradient, weights):
        """Add the coupled weight decay to a gradient."""
        return gradient if self.decayed is None else gradient + self.weight_decay * (self.decayed * weights)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as in PyTorch."""

    def build_state(self, settings):
        self.momentum = scalar(settings.momentum)
        self.vectors = [self.flat.new_vector("moments", 0.0)]

    def step(self, rate, weights, gradient):
        """Compute the new weights, vectors and numbers; `rate` is (1,), or (L,) where parameters differ in it."""
        moments = self.momentum * self.vectors[0] + self.with_decay(gradient, weights)
        return weights - rate * moments, (moments,), ()


class RMSPropTF(Optimizer):
    """RMSProp with the conventions of TensorFlow, as in timm's `rmsproptf`.

    The mean square starts at one, epsilon is added inside the root, and the learning rate goes into the momentum
    buffer, so that a change of it acts on later gradients only.
    """

    def build_state(self, settings):
        self.fresh, self.momentum, self.epsilon = map(scalar, (1 - settings.rho, settings.momentum, settings.epsilon))
        self.vectors = [self.flat.new_vector("mean_square", 1.0), self.flat.new_vector("velocity", 0.0)]

    def step(self, rate, weights, gradient):
        """Compute the new weights, vectors and numbers."""
        mean_square, velocity = self.vectors
        gradient = self.with_decay(gradient, weights)
        mean_square = mean_square + self.fresh * (gradient * gradient - mean_square)
        velocity = self.momentum * velocity + rate * gradient / ops.sqrt(mean_square + self.epsilon)
        return weights - velocity, (mean_square, velocity), ()


class AdamW(Optimizer):
    """Adam with bias correction and decoupled weight decay (Loshchilov & Hutter, ICLR 2019), as in PyTorch.

    MindSpore's `nn.AdamWeightDecay` has no bias correction, its `nn.Adam` no decoupled decay.
    """

    def build_state(self, settings):
        self.beta1, self.beta2, self.epsilon = map(scalar, (*settings.betas, settings.epsilon))
        self.vectors = [self.flat.new_vector(name, 0.0) for name in ("moment1", "moment2")]
        self.numbers = [
            Parameter(scalar(1.0), name=name, requires_grad=False) for name in ("beta1_power", "beta2_power")
        ]

    def step(self, rate, weights, gradient):
        """Compute the new weights, vectors and numbers."""
        moment1, moment2 = self.vectors
        power1, power2 = self.numbers[0] * self.beta1, self.numbers[1] * self.beta2
        root = ops.sqrt(1 - power2)  # the bias correction of moment2, taken out of the root
        moment1 = moment1 + (1 - self.beta1) * (gradient - moment1)
        moment2 = moment2 + (1 - self.beta2) * (gradient * gradient - moment2)
        update = rate * root / (1 - power1) * moment1 / (ops.sqrt(moment2) + root * self.epsilon)
        if self.decayed is not None:
            update = update + rate * self.weight_decay * (self.decayed * weights)
        return weights - update, (moment1, moment2), (power1, power2)


OPTIMIZERS = {"adamw": AdamW, "rmsprop": RMSPropTF, "sgd": SGD}
