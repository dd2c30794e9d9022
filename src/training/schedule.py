"""Learning-rate schedules: the rate of every update of a run.

The schedules are those of the authors' training script, timm 0.3.2, and PyTorch's polynomial one. Each is a small
function of the time since the start of the run, the warm-up included, in units: updates, or epochs where the rate
changes by epoch.
"""

import math

import numpy as np

from src.errors import UserError
from src.settings import MAX_UPDATES

NOISE_LIMIT = 0.67


def cosine(settings, time, epoch, epochs):
    """Follow half a cosine from the learning rate to the smallest one at the end of `epochs`, then keep that."""
    progress = min(1.0, time / (epochs * epoch))
    span = settings.learning_rate - settings.min_learning_rate
    return settings.min_learning_rate + span * (1 + math.cos(math.pi * progress)) / 2


def polynomial(settings, time, epoch, epochs):
    """Fall from the learning rate to the smallest one with the share of the run that is left, to a power."""
    left = 1 - time / (epochs * epoch)
    span = settings.learning_rate - settings.min_learning_rate
    return settings.min_learning_rate + span * left**settings.power


def step(settings, time, epoch, epochs):
    """Multiply the learning rate by `decay_rate` every `decay_epochs`."""
    decays = time // (settings.decay_epochs * epoch)
    return max(settings.min_learning_rate, settings.learning_rate * settings.decay_rate**decays)


def multistep(settings, time, epoch, epochs):
    """Multiply the learning rate by `decay_rate` at each of the epochs `milestones`."""
    passed = sum(time >= milestone * epoch for milestone in settings.milestones)
    return max(settings.min_learning_rate, settings.learning_rate * settings.decay_rate**passed)


def constant(settings, time, epoch, epochs):
    """Keep the learning rate."""
    return settings.learning_rate


# each from (`ScheduleSettings`, time, units in an epoch, epochs of the run) to the rate
SCHEDULES = {
    "cosine": cosine,
    "polynomial": polynomial,
    "step": step,
    "multistep": multistep,
    "constant": constant,
}


def with_warmup(rate_at, settings, length):
    """Put a linear warm-up of `length` units in place of the beginning of a function from time to rate."""

    def rate(time):
        if time >= length:
            return rate_at(time)
        first = settings.warmup_learning_rate
        return first + (settings.learning_rate - first) * time / length

    return rate


def with_noise(rate_at, start, end, seed):
    """Multiply a function from time to rate by 1 + x from `start` up to `end`, with one x of `draw_noise` a unit."""

    def rate(time):
        return rate_at(time) * (1 + draw_noise(seed, time)) if start <= time < end else rate_at(time)

    return rate


def draw_noise(seed, time):
    """Draw a standard normal number within +-`NOISE_LIMIT`, the same whenever asked for the same `time`."""
    generator = np.random.default_rng((seed, time))
    while True:
        noise = generator.standard_normal()
        if abs(noise) < NOISE_LIMIT:
            return noise


def build_schedule(settings, epochs, updates_per_epoch, seed) -> list:
    """Build the learning rates of all updates of a run.

    Args:
        settings: `ScheduleSettings`.
        epochs: of the run, without the cool-down.
        updates_per_epoch: changes of the weights in an epoch.
        seed: of the noise.

    Returns:
        `total_epochs(...) * updates_per_epoch` numbers.

    Raises:
        UserError: if these are more than `MAX_UPDATES`, or fewer than those of the warm-up.
    """
    check_length(settings, epochs, updates_per_epoch)
    by_update = settings.unit == "step"
    epoch, repeats = (updates_per_epoch, 1) if by_update else (1, updates_per_epoch)
    warmup = settings.warmup_epochs * epoch if settings.warmup_steps == 0 else settings.warmup_steps / repeats
    schedule = SCHEDULES[settings.name]

    def rate_at(time):
        return schedule(settings, time, epoch, epochs)

    rate_at = with_warmup(rate_at, settings, warmup)
    if settings.noise:
        start, end = (share * epochs * epoch for share in settings.noise)
        rate_at = with_noise(rate_at, start, end, seed)
    units = total_epochs(settings, epochs) * updates_per_epoch // repeats
    return [rate for time in range(units) for rate in [rate_at(time)] * repeats]


def total_epochs(settings, epochs) -> int:
    """Count the epochs of a run: only a cosine, which has reached its minimum, cools down."""
    return epochs + settings.cooldown_epochs if settings.name == "cosine" else epochs


def check_length(settings, epochs, updates_per_epoch) -> None:
    """Raise `UserError` for a run that is too long, or shorter than its warm-up."""
    whole, updates = total_epochs(settings, epochs) * updates_per_epoch, epochs * updates_per_epoch
    if whole > MAX_UPDATES:
        raise UserError(
            f"train.epochs: {epochs}, with {updates_per_epoch} updates each, make {whole} updates, "
            f"at most {MAX_UPDATES} are allowed"
        )
    if settings.warmup_epochs > epochs:
        raise UserError(f"schedule.warmup_epochs: {settings.warmup_epochs} is more than train.epochs {epochs}")
    if settings.warmup_steps > updates:
        steps = settings.warmup_steps
        raise UserError(f"schedule.warmup_steps: {steps} is more than the {updates} updates of train.epochs {epochs}")
