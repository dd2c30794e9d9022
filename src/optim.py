"""Learning-rate schedules, parameter groups and optimizers.

The schedules and RMSProp are those of the authors' training script, timm 0.3.2. RMSProp and AdamW are plain
operations, which give the same bits in every process: MindSpore's RMSProp kernel does not on CPU, its Adam kernel
makes no such promise.
"""

import math

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

NOISE_LIMIT = 0.67


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
    cooldown_epochs=0,
    unit="step",
    noise=(),
    seed=0,
    warmup_steps=0,
    milestones=(),
    power=0.9,
):
    """Learning rate of every step, as a list of `total_epochs(...) * steps_per_epoch` numbers.

    Linear warm-up from `warmup_learning_rate` over `warmup_epochs`, or over `warmup_steps` updates; then one of

    - `cosine` to `min_learning_rate` at the end of `epochs`, and that for `cooldown_epochs` more;
    - `polynomial`: (1 - share of the run) to the `power`, from the learning rate to `min_learning_rate`;
    - `step`: times `decay_rate` every `decay_epochs`;
    - `multistep`: times `decay_rate` at each of the epochs `milestones`;
    - `constant`.

    All count from the start, the warm-up included.

    Args:
        unit: 'epoch' keeps the rate for a whole epoch, 'step' changes it with every step.
        noise: shares (from, to) of `epochs` between which each rate is multiplied by 1 + x, x normal but within
            +-`NOISE_LIMIT`, one x an epoch (or a step); () for none.
        seed: of the noise.
    """
    total = total_epochs(name, epochs, cooldown_epochs) * steps_per_epoch
    scale = steps_per_epoch if unit == "step" else 1  # units in an epoch
    repeats = 1 if unit == "step" else steps_per_epoch
    warmup = warmup_epochs * scale if warmup_steps == 0 else warmup_steps / repeats
    rates = []
    for time in range(total // repeats):
        if time < warmup:
            rate = warmup_learning_rate + (learning_rate - warmup_learning_rate) * time / warmup
        elif name == "cosine":
            progress = min(1.0, time / (epochs * scale))
            rate = min_learning_rate + (learning_rate - min_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
        elif name == "polynomial":
            left = 1 - time / (epochs * scale)
            rate = min_learning_rate + (learning_rate - min_learning_rate) * left**power
        elif name == "step":
            rate = max(min_learning_rate, learning_rate * decay_rate ** (time // (decay_epochs * scale)))
        elif name == "multistep":
            passed = sum(time >= milestone * scale for milestone in milestones)
            rate = max(min_learning_rate, learning_rate * decay_rate**passed)
        else:
            rate = learning_rate
        if noise and noise[0] * epochs * scale <= time < noise[1] * epochs * scale:
            rate *= 1 + draw_noise(seed, time)
        rates += [rate] * repeats
    return rates


def total_epochs(name, epochs, cooldown_epochs):
    """Epochs of a run: only a cosine, which has reached its minimum, cools down."""
    return epochs + cooldown_epochs if name == "cosine" else epochs


def draw_noise(seed, time):
    """Standard normal number within +-`NOISE_LIMIT`, the same whenever asked for the same `time`."""
    generator = np.random.default_rng((seed, time))
    while True:
        noise = generator.standard_normal()
        if abs(noise) < NOISE_LIMIT:
            return noise


def decays(parameter) -> bool:
    """Whether weight decay applies: to weights, not to biases and batch normalisation."""
    return len(parameter.shape) > 1


def build_optimizer(parameters, name, rates, weight_decay, momentum, betas, epsilon, rho=0.9):
    """The optimizer `name` over `parameters`, with the learning rate of each step in `rates`.

    `sgd` couples weight decay to the gradient and `adamw` does not, both as PyTorch's do; `rmsprop` is
    TensorFlow's, with coupled decay.
    """
    parameters = list(parameters)
    if name == "adamw":
        return AdamW(parameters, rates, weight_decay, betas, epsilon)
    if name == "rmsprop":
        return RMSPropTF(parameters, rates, weight_decay, rho, momentum, epsilon)
    groups = [
        {"params": [p for p in parameters if decays(p)], "weight_decay": weight_decay},
        {"params": [p for p in parameters if not decays(p)], "weight_decay": 0.0},
        {"order_params": parameters},
    ]
    return nn.Momentum(groups, rates, momentum)


def _scalar(value):
    return Tensor(value, mindspore.float32)


class RMSPropTF(nn.Optimizer):
    """RMSProp with the conventions of TensorFlow, as in timm's `rmsproptf`.

    The mean square starts at one, epsilon is added inside the root, and the learning rate goes into the momentum
    buffer, so that a change of it acts on later gradients only.
    """

    def __init__(self, parameters, learning_rate, weight_decay=0.0, rho=0.9, momentum=0.9, epsilon=1e-3):
        super().__init__(learning_rate, parameters)
        self.decayed = tuple(weight_decay > 0 and decays(parameter) for parameter in self._parameters)
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

    def __init__(self, parameters, learning_rate, weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(learning_rate, parameters)
        self.decayed = tuple(weight_decay > 0 and decays(parameter) for parameter in self._parameters)
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
