"""Callbacks of training: progress, evaluation, metrics, checkpoints, and a clean stop on a signal.

They share a `History`, whose last row is the current epoch, and run in the order in which `build_callbacks`
lists them: each adds to the row what the next ones write.
"""

import signal
import time

import mindspore
import numpy as np
from tqdm import tqdm

from src.checkpoint import save_weights


class History:
    """What the callbacks of a run share: a dict for each epoch, and whether a signal ended the run."""

    def __init__(self):
        self.rows = []
        self.interrupted = False


class StopOnSignal(mindspore.Callback):
    """End training after the current step on Ctrl-C or a termination signal; a second one aborts."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, history):
        super().__init__()
        self.history = history
        self.previous = {}

    def on_train_begin(self, run_context):
        self.previous = {number: signal.signal(number, self.handle) for number in self.SIGNALS}

    def handle(self, number, frame):
        if self.history.interrupted:
            raise KeyboardInterrupt
        self.history.interrupted = True
        tqdm.write("stopping after this step; once more to abort at once")

    def on_train_step_end(self, run_context):
        if self.history.interrupted:
            run_context.request_stop()

    def on_train_end(self, run_context):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


class Progress(mindspore.Callback):
    """Progress bar of each epoch; mean loss, learning rate and images/s into the row.

    The first step of an epoch does not count for the speed: it may compile the graph or fill the pipeline.
    """

    def __init__(self, history, batch_size, rates, show=True):
        super().__init__()
        self.history, self.batch_size, self.rates, self.show = history, batch_size, rates, show
        self.bar = None
        self.losses = []
        self.epoch_start = self.first_step_end = 0.0

    def on_train_epoch_begin(self, run_context):
        parameters = run_context.original_args()
        self.losses, self.epoch_start = [], time.monotonic()
        self.history.rows.append({"epoch": parameters.cur_epoch_num})
        self.bar = tqdm(
            total=parameters.batch_num * self.batch_size,
            desc=f"epoch {parameters.cur_epoch_num}/{parameters.epoch_num}",
            unit="img",
            leave=False,
            disable=None if self.show else True,
        )

    def on_train_step_end(self, run_context):
        self.losses.append(float(run_context.original_args().net_outputs.asnumpy()))
        if len(self.losses) == 1:
            self.first_step_end = time.monotonic()
        self.bar.set_postfix(loss=f"{self.losses[-1]:.3f}", refresh=False)
        self.bar.update(self.batch_size)

    def on_train_epoch_end(self, run_context):
        self.bar.close()
        end, steps = time.monotonic(), run_context.original_args().cur_step_num
        row = self.history.rows[-1]
        row["step"] = steps
        row["learning_rate"] = self.rates[steps - 1]
        row["train_loss"] = float(np.mean(self.losses))
        if len(self.losses) > 1:
            row["images_per_second"] = (len(self.losses) - 1) * self.batch_size / (end - self.first_step_end)
        row["seconds"] = end - self.epoch_start


class Evaluation(mindspore.Callback):
    """The task's metrics into the row, every few epochs and at the end of the run."""

    def __init__(self, history, evaluate, every=1):
        super().__init__()
        self.history, self.evaluate, self.every = history, evaluate, every

    def on_train_epoch_end(self, run_context):
        parameters = run_context.original_args()
        is_last = parameters.cur_epoch_num == parameters.epoch_num
        if not self.history.interrupted and (is_last or parameters.cur_epoch_num % self.every == 0):
            metrics = self.evaluate()
            metrics.pop("images_per_second", None)  # the row has training's
            self.history.rows[-1].update(metrics)


class Saving(mindspore.Callback):
    """Last and best checkpoint, one line an epoch, `metrics.csv` and `curves.png`."""

    def __init__(self, history, network, folder, metric):
        super().__init__()
        self.history, self.network, self.folder, self.metric = history, network, folder, metric
        self.best = -np.inf

    def on_train_epoch_end(self, run_context):
        row = self.history.rows[-1]
        save_weights(self.network, self.folder.last)
        is_best = row.get(self.metric, -np.inf) > self.best
        if is_best:
            self.best = row[self.metric]
            save_weights(self.network, self.folder.best)
        message = format_row(row, run_context.original_args().epoch_num) + (" (best)" if is_best else "")
        tqdm.write(message)
        self.folder.log(message)
        self.folder.write_metrics(self.history.rows)
        self.folder.draw_curves(self.history.rows, self.metric)


def format_row(row, epochs) -> str:
    """A row as one line of text."""
    parts = [f"epoch {row['epoch']}/{epochs}"]
    for key, value in row.items():
        if key not in ("epoch", "step", "images"):
            parts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return "  ".join(parts)


def build_callbacks(history, network, folder, evaluate, metric, rates, batch_size, evaluate_every):
    """The callbacks of a run, in the order in which they work on a row.

    Args:
        history: the shared `History`.
        network: whose weights are saved.
        folder: `RunFolder` to write to; None on processes that write nothing.
        evaluate: function without arguments that returns the metrics.
        metric: key of the one whose highest value makes the best checkpoint.
        rates: learning rate of each step.
        batch_size: images a step, over all processes.
        evaluate_every: epochs between evaluations.
    """
    callbacks = [
        StopOnSignal(history),
        Progress(history, batch_size, rates, show=folder is not None),
        Evaluation(history, evaluate, evaluate_every),
    ]
    return callbacks + ([Saving(history, network, folder, metric)] if folder is not None else [])
