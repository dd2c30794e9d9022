"""Learning-rate schedules, parameter groups and optimizers."""

import math

import mindspore
from mindspore import Parameter, Tensor, nn, ops


def build_schedule(
    name,
    learning_rate,
    epochs,
    steps_per_epoch,
    warmup_epochs=0.0,
    warmup_learning_rate=1e-6,
    min_learning_rate=0.0,
    decay_epochs=2.4,
    decay_rate=0.973,
):
    """Learning rate of every step, as a list of `epochs * steps_per_epoch` numbers.

    Linear warm-up from `warmup_learning_rate` over `warmup_epochs`, then `cosine` down to
    `min_learning_rate` at the end, `step` (times `decay_rate` every `decay_epochs`, counted from the
    start), or `constant`.
    """
    total = epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), total)
    rates = []
    for step in range(total):
        if step < warmup:
            rate = warmup_learning_rate + (learning_rate - warmup_learning_rate) * step / warmup
        elif name == "cosine":
            progress = (step - warmup) / max(1, total - warmup)
            rate = min_learning_rate + (learning_rate - min_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
        elif name == "step":
            rate = max(min_learning_rate, learning_rate * decay_rate ** (step / steps_per_epoch // decay_epochs))
        else:
            rate = learning_rate
        rates.append(rate)
    return rates


def decays(parameter) -> bool:
    """Whether weight decay applies: to weights, not to biases and batch normalisation."""
    return len(parameter.shape) > 1


def build_optimizer(parameters, name, rates, weight_decay, momentum, betas, epsilon):
    """The optimizer `name` over `parameters`, with the learning rate of each step in `rates`.

    `sgd` couples weight decay to the gradient and `adamw` does not, both as PyTorch's do.
    """
    parameters = list(parameters)
    if name == "adamw":
        return AdamW(parameters, rates, weight_decay, betas, epsilon)
    groups = [
        {"params": [p for p in parameters if decays(p)], "weight_decay": weight_decay},
        {"params": [p for p in parameters if not decays(p)], "weight_decay": 0.0},
        {"order_params": parameters},
    ]
    return nn.Momentum(groups, rates, momentum)


_adamw = ops.MultitypeFuncGraph("adamw")


@_adamw.register("Function", "Function", "Tuple", "Tensor", "Bool", "Tensor", "Tensor", "Tensor", "Tensor")
def _update_adamw(adam, descend, constants, decay, decayed, parameter, moment1, moment2, gradient):
    if decayed:
        descend(parameter, decay, parameter)  # parameter -= decay * parameter
    adam(parameter, moment1, moment2, *constants, gradient)
    return True


class AdamW(nn.Optimizer):
    """Adam with bias correction and decoupled weight decay (Loshchilov & Hutter, ICLR 2019), as in PyTorch.

    MindSpore's `nn.AdamWeightDecay` has no bias correction, its `nn.Adam` no decoupled decay. One detail is
    the kernel's: epsilon is added before the bias correction, not behind it.
    """

    def __init__(self, parameters, learning_rate, weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(learning_rate, parameters)
        self.beta1, self.beta2 = betas
        self.epsilon = epsilon
        self.decay = weight_decay
        self.decayed = tuple(weight_decay > 0 and decays(parameter) for parameter in self._parameters)
        self.moment1 = self._parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self._parameters.clone(prefix="moment2", init="zeros")
        self.beta1_power = Parameter(Tensor(1.0, mindspore.float32), name="beta1_power")
        self.beta2_power = Parameter(Tensor(1.0, mindspore.float32), name="beta2_power")
        self.adam = ops.Adam()
        self.descend = ops.ApplyGradientDescent()

    def construct(self, gradients):
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        beta1_power, beta2_power = self.beta1_power * self.beta1, self.beta2_power * self.beta2
        ops.assign(self.beta1_power, beta1_power)
        ops.assign(self.beta2_power, beta2_power)
        constants = (beta1_power, beta2_power, rate, self.beta1, self.beta2, self.epsilon)
        update = ops.partial(_adamw, self.adam, self.descend, constants, rate * self.decay)
        # last layer first, as the gradients arrive: updates then run beside the backward pass
        return self.map_reverse(update, self.decayed, self._parameters, self.moment1, self.moment2, gradients)
