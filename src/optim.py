"""Learning-rate schedules, parameter groups and optimizers."""

import math

from mindspore import Tensor, nn, ops


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


_shrink = ops.MultitypeFuncGraph("shrink")


@_shrink.register("Tensor", "Tensor", "Tensor")
def _shrink_weight(rate, decay, parameter):
    return ops.assign(parameter, parameter * (1 - rate * decay))


class AdamW(nn.Adam):
    """Adam with bias correction and decoupled weight decay (Loshchilov & Hutter, ICLR 2019), as in PyTorch.

    MindSpore's `nn.AdamWeightDecay` has no bias correction, its `nn.Adam` no decoupled decay.
    """

    def __init__(self, parameters, learning_rate, weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(parameters, learning_rate, beta1=betas[0], beta2=betas[1], eps=epsilon)
        self.shrinking = tuple(p for p in self._parameters if decays(p)) if weight_decay > 0 else ()
        self.decay = tuple(Tensor(weight_decay) for _ in self.shrinking)

    def construct(self, gradients):
        if len(self.shrinking) > 0:
            self.hyper_map(ops.partial(_shrink, self.get_lr()), self.decay, self.shrinking)
        return super().construct(gradients)
