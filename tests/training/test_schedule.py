"""Learning-rate schedules against their definitions, timm's and PyTorch's."""

import math
import time

import numpy as np
import pytest
from helpers import build_rates, reference

from src.errors import UserError
from src.settings import ScheduleSettings
from src.training.schedule import NOISE_LIMIT, draw_noise, total_epochs


def test_cosine_schedule():
    rates = build_rates("cosine", 0.1, 5, 4, warmup_epochs=1, warmup_learning_rate=0.02, min_learning_rate=0.01)
    assert len(rates) == 20
    assert rates[:4] == pytest.approx([0.02, 0.04, 0.06, 0.08])
    assert rates[10] == pytest.approx(0.055)  # half of the cosine
    assert rates[-1] == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * 19 / 20)) / 2)


def test_step_and_constant_schedule():
    rates = build_rates("step", 1.0, 5, 2, decay_epochs=2, decay_rate=0.5)
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert build_rates("constant", 0.3, 2, 2) == [0.3] * 4


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_warm_up_may_take_the_whole_run_but_not_more(unit):
    for warmup in ({"warmup_epochs": 2}, {"warmup_steps": 8}):
        rates = build_rates("cosine", 1.0, 2, 4, unit=unit, warmup_learning_rate=0.0, **warmup)
        assert rates == ([0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875] if unit == "step" else [0] * 4 + [0.5] * 4)
    with pytest.raises(UserError, match=r"^schedule\.warmup_epochs: 2\.5 is more than train\.epochs 2$"):
        build_rates("cosine", 1.0, 2, 4, unit=unit, warmup_epochs=2.5)
    with pytest.raises(UserError, match=r"^schedule\.warmup_steps: 9 is more than the 8 updates of train\.epochs 2$"):
        build_rates("cosine", 1.0, 2, 4, unit=unit, warmup_steps=9)


def test_a_schedule_without_end_is_refused_at_once():
    begin = time.monotonic()
    with pytest.raises(
        UserError, match=r"^train\.epochs: 1000000000, with 10 updates each, make 10000000000 updates, at"
    ):
        build_rates("constant", 1.0, 10**9, 10)
    with pytest.raises(UserError, match=r"^train\.epochs: 1, with 335544 updates each, make 33889944 updates, at most"):
        build_rates("cosine", 1.0, 1, 335_544, cooldown_epochs=100)
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "step", "cooldown_epochs": 1}, "cooldown_epochs: 1 has no effect on step, only on cosine"),
        ({"name": "cosine", "min_learning_rate": 0.2}, "min_learning_rate: 0.2 is above learning_rate 0.1"),
        ({"name": "polynomial", "min_learning_rate": 0.2}, "min_learning_rate: 0.2 is above learning_rate 0.1"),
        ({"noise": (0.9, 0.4)}, "noise: [0.9, 0.4] is not in rising order"),
        ({"warmup_epochs": 1.0, "warmup_steps": 1}, "warmup_steps: and warmup_epochs cannot both be set"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(UserError) as error:
        ScheduleSettings(learning_rate=0.1, **settings)
    assert str(error.value) == message


def test_multistep_schedule_with_warmup_in_steps():
    options = {"warmup_steps": 4, "warmup_learning_rate": 0.0, "milestones": (2, 3), "decay_rate": 0.1}
    rates = build_rates("multistep", 1.0, 4, 3, **options)
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_polynomial_schedule_equals_torchs():
    torch = reference("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=40, power=0.9)
    expected = []
    for _ in range(40):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert build_rates("polynomial", 0.01, 4, 10, power=0.9) == pytest.approx(expected, rel=1e-9)
    floored = build_rates("polynomial", 0.01, 4, 10, min_learning_rate=1e-4)
    assert floored[0] == 0.01 and min(floored) > 1e-4


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("name", ["step", "cosine"])
def test_whole_schedule_equals_timms(name, unit):
    torch, timm = reference("torch"), reference("timm.scheduler")
    epochs, steps, cooldown = 450, 7, 10 if name == "cosine" else 0
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.064)
    scheduler, length = timm.create_scheduler_v2(
        optimizer,
        name,
        num_epochs=epochs,
        decay_epochs=2.4,
        decay_rate=0.973,
        min_lr=1e-5 if name == "cosine" else 0.0,
        cooldown_epochs=cooldown,
        warmup_lr=1e-6,
        warmup_epochs=3,
        step_on_epochs=unit == "epoch",
        updates_per_epoch=steps,
    )
    expected = []
    for epoch in range(length if name == "cosine" else epochs):
        scheduler.step(epoch)
        for step in range(steps):
            scheduler.step_update(epoch * steps + step)
            expected.append(optimizer.param_groups[0]["lr"])
    options = {"min_learning_rate": 1e-5 if name == "cosine" else 0.0, "cooldown_epochs": cooldown, "unit": unit}
    options.update(warmup_epochs=3.0, warmup_learning_rate=1e-6, decay_epochs=2.4, decay_rate=0.973)
    rates = build_rates(name, 0.064, epochs, steps, **options)
    whole = total_epochs(ScheduleSettings(name=name, cooldown_epochs=cooldown), epochs)
    assert len(rates) == len(expected) == whole * steps
    assert np.allclose(rates, expected, rtol=1e-9, atol=0)


def test_noise_has_timms_range_and_distribution():
    torch, timm = reference("torch"), reference("timm.scheduler.step_lr")
    plain, noisy, again, other = (
        np.array(build_rates("step", 0.064, 1000, 2, unit="epoch", noise=noise, seed=seed))
        for noise, seed in ((None, 1), ((0.42, 0.9), 1), ((0.42, 0.9), 1), ((0.42, 0.9), 2))
    )
    factors = (noisy / plain)[::2] - 1
    assert np.array_equal(noisy[::2], noisy[1::2])  # once an epoch
    assert (factors[:420] == 0).all() and (factors[900:] == 0).all() and (factors[420:900] != 0).all()
    assert np.array_equal(noisy, again) and not np.array_equal(noisy, other)

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = timm.StepLRScheduler(optimizer, decay_t=1, noise_range_t=[0, 1], noise_pct=NOISE_LIMIT)
    theirs = np.sort([scheduler._calculate_noise(time) for time in range(4000)])
    ours = np.sort([draw_noise(5, time) for time in range(4000)])
    assert np.abs(ours).max() < NOISE_LIMIT
    deciles = np.linspace(0.05, 0.95, 19)
    assert np.abs(np.quantile(ours, deciles) - np.quantile(theirs, deciles)).max() < 0.06
