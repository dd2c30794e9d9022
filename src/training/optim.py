"""Optimizers, and which parameters weight decay is for.

RMSProp is that of the authors' training script, timm 0.3.2. RMSProp and AdamW are plain operations, which give the
same bits in every process: MindSpore's RMSProp kernel does not on CPU, its Adam kernel makes no such promise.
"""

import mindspore
from mindspore import Parameter, Tensor, nn, ops


def decays(parameter, settings) -> bool:
    """Whether weight decay applies: to weights; to biases and batch normalisation with `decay_all` only."""
    return settings.weight_decay > 0 and (settings.decay_all or len(parameter.shape) > 1)


def build_optimizer(parameters, rates, settings):
    """Build the optimizer of some settings.

    `sgd` couples weight decay to the gradient and `adamw` does not, both as PyTorch's do; `rmsprop` is
    TensorFlow's, with coupled decay.

    Args:
        parameters: to train.
        rates: learning rate of each update.
        settings: `OptimizerSettings`.
    """
    parameters = list(parameters)
    decayed = [decays(parameter, settings) for parameter in parameters]
    if settings.name == "adamw":
        return AdamW(parameters, decayed, rates, settings.weight_decay, settings.betas, settings.epsilon)
    if settings.name == "rmsprop":
        decay, momentum = settings.weight_decay, settings.momentum
        return RMSPropTF(parameters, decayed, rates, decay, settings.rho, momentum, settings.epsilon)
    groups = [
        {"params": [p for p, decay in zip(parameters, decayed) if decay], "weight_decay": settings.weight_decay},
        {"params": [p for p, decay in zip(parameters, decayed) if not decay], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return nn.Momentum([*groups, {"order_params": parameters}], rates, settings.momentum)


def _scalar(value):
    return Tensor(value, mindspore.float32)


class RMSPropTF(nn.Optimizer):
    """RMSProp with the conventions of TensorFlow, as in timm's `rmsproptf`.

    The mean square starts at one, epsilon is added inside the root, and the learning rate goes into the momentum
    buffer, so that a change of it acts on later gradients only.
    """

    def __init__(self, parameters, decayed, learning_rate, weight_decay, rho, momentum, epsilon):
        super().__init__(learning_rate, parameters)
        self.decayed = tuple(decayed)
        self.mean_square = self._parameters.clone(prefix="mean_square", init="ones")
        self.velocity = self._parameters.clone(prefix="velocity", init="zeros")
        self.constants = tuple(_scalar(value) for value in (1 - rho, momentum, epsilon, weight_decay))

    def construct(self, gradients):
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        update = ops.partial(_update_rmsprop, rate, self.constants)
        # last layer first, as the gradients arrive: updates then run beside the backward pass
        return self.map_reverse(update, self.decayed, self._parameters, self.mean_square, self.velocity, gradients)


_update_rmsprop = ops.MultitypeFuncGraph("update_rmsprop")


@_update_rmsprop.register("Tensor", "Tuple", "Bool", "Tensor", "Tensor", "Tensor", "Tensor")
def _rmsprop(rate, constants, decayed, parameter, mean_square, velocity, gradient):
    fresh, momentum, epsilon, decay = constants
    if decayed:
        gradient = gradient + decay * parameter
    mean_square = ops.assign_add(mean_square, fresh * (gradient * gradient - mean_square))
    velocity = ops.assign(velocity, momentum * velocity + rate * gradient / ops.sqrt(mean_square + epsilon))
    ops.assign_sub(parameter, velocity)
    return True


class AdamW(nn.Optimizer):
    """Adam with bias correction and decoupled weight decay (Loshchilov & Hutter, ICLR 2019), as in PyTorch.

    MindSpore's `nn.AdamWeightDecay` has no bias correction, its `nn.Adam` no decoupled decay.
    """

    def __init__(self, parameters, decayed, learning_rate, weight_decay, betas, epsilon):
        super().__init__(learning_rate, parameters)
        self.decayed = tuple(decayed)
        self.moment1 = self._parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self._parameters.clone(prefix="moment2", init="zeros")
        self.beta1_power = Parameter(_scalar(1.0), name="beta1_power")
        self.beta2_power = Parameter(_scalar(1.0), name="beta2_power")
        self.beta1, self.beta2, self.epsilon, self.decay = (_scalar(value) for value in (*betas, epsilon, weight_decay))

    def construct(self, gradients):
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        beta1_power = ops.assign(self.beta1_power, self.beta1_power * self.beta1)
        beta2_power = ops.assign(self.beta2_power, self.beta2_power * self.beta2)
        root = ops.sqrt(1 - beta2_power)  # the bias correction of moment2, taken out of the root
        constants = (1 - self.beta1, 1 - self.beta2, rate * root / (1 - beta1_power), root * self.epsilon)
        update = ops.partial(_update_adamw, constants, rate * self.decay)
        return self.map_reverse(update, self.decayed, self._parameters, self.moment1, self.moment2, gradients)


_update_adamw = ops.MultitypeFuncGraph("update_adamw")


@_update_adamw.register("Tuple", "Tensor", "Bool", "Tensor", "Tensor", "Tensor", "Tensor")
def _adamw(constants, decay, decayed, parameter, moment1, moment2, gradient):
    fresh1, fresh2, rate, epsilon = constants
    moment1 = ops.assign_add(moment1, fresh1 * (gradient - moment1))
    moment2 = ops.assign_add(moment2, fresh2 * (gradient * gradient - moment2))
    update = rate * moment1 / (ops.sqrt(moment2) + epsilon)
    if decayed:
        update = update + decay * parameter
    ops.assign_sub(parameter, update)
    return True
