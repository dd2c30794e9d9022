"""Which checkpoint is the best, and when a run that gets no better ends."""

import math

import pytest
from training.tiny_run import losses_in, tiny_run

from src.errors import UserError
from src.training.run import train

NAN = math.nan

pytestmark = pytest.mark.usefixtures("pynative")


def test_the_lowest_loss_may_be_the_best(folder):
    values = iter([0.5, 0.2, 0.2, 0.9])
    run = tiny_run([[1.0]] * 4, best_metric="loss", keep_best=2)
    run.task.evaluate = lambda network, dataset: {"accuracy": 0.0, "loss": next(values)}
    assert train(run, folder, "val")
    assert run.history.kept == [(0.2, 2), (0.2, 3)] and losses_in(folder.best) == 2


def test_an_unknown_metric_ends_in_one_line():
    with pytest.raises(
        UserError, match=r"^train.best_metric: 'acuracy' is not one of accuracy, loss .*'accuracy'\?\)$"
    ):
        tiny_run([[1.0]], best_metric="acuracy")


@pytest.mark.parametrize(
    ("best_metric", "values"), [("accuracy", [0.1, 0.5, 0.5, NAN, 0.6]), ("loss", [3.0, 1.0, 1.0, NAN, 0.0])]
)
def test_patience_ends_a_run_that_gets_no_better(folder, best_metric, values):
    """Two evaluations behind the best one: an equal one and one that is no number; every other epoch has one."""

    def run_with(patience):
        remaining = iter(values)
        run = tiny_run([[1.0]] * 10, best_metric=best_metric, patience=patience, evaluate_every=2)
        run.task.evaluate = lambda network, dataset: {best_metric: next(remaining)}
        return run

    assert train(run_with(2), folder, "val")
    end = f"no better {best_metric} in 2 evaluations in a row: the run ends"
    log = folder.log_file.read_text().splitlines()
    assert len(log) == 9 and log[-1] == end
    ended = run_with(2)
    ended.state.restore(folder.last)
    assert ended.history.epoch == 8 and train(ended, folder, "val")  # at once
    patient = run_with(3)
    patient.state.restore(folder.last)
    patient.task.evaluate = lambda network, dataset: {best_metric: values[-1]}
    assert train(patient, folder, "val") and patient.history.epoch == 10
    assert patient.history.kept == [(values[-1], 10)]
