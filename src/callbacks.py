"""Callbacks of training: progress, evaluation, metrics, checkpoints, and a clean stop on a signal.

They share the run's `History` and work on its last row in the order in which `Training.build_callbacks` lists them.
"""

import math
import os
import signal
import time

import mindspore
from tqdm import tqdm

from src.checkpoint import save_weights
from src.errors import UserError
from src.runtime import mean_over_ranks

LOSS_INTERVAL = 10  # batches after which losses are fetched from the device
MAX_BAD_LOSSES = 50  # in a row, where a loss scale may still help


class StopOnSignal(mindspore.Callback):
    """End training at the next update on Ctrl-C or a termination signal; a second one aborts.

    Stands behind `Progress`, which counts the batch.
    With several processes the first one aborts: they might stop at different steps and wait for each other for ever.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, history, accumulation_steps=1):
        super().__init__()
        self.history, self.accumulation_steps = history, accumulation_steps
        self.previous = {}

    def on_train_begin(self, run_context):
        self.previous = {number: signal.signal(number, self.handle) for number in self.SIGNALS}

    def handle(self, number, frame):
        if self.history.interrupted or self.history.ranks > 1:
            raise KeyboardInterrupt
        self.history.interrupted = True
        tqdm.write("stopping after this step; once more to abort at once")

    def on_train_step_end(self, run_context):
        if self.history.interrupted and self.history.step % self.accumulation_steps == 0:
            run_context.request_stop()

    def on_train_epoch_end(self, run_context):
        if self.history.interrupted:
            run_context.request_stop()

    def on_train_end(self, run_context):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


class Progress(mindspore.Callback):
    """Progress bar, log lines, and a row for each whole epoch: mean loss, learning rate, images/s.

    The first step of an epoch does not count for the speed: it may compile the graph or fill the pipeline.

    Raises:
        UserError: when the loss is not a finite number.
    """

    def __init__(self, history, step, rates, epochs, batch_size, log_every, log, last_checkpoint, save_every=0):
        super().__init__()
        self.history, self.train_step, self.rates, self.epochs = history, step, rates, epochs
        self.batch_size, self.log_every, self.log, self.last_checkpoint = batch_size, log_every, log, last_checkpoint
        self.save_every = save_every
        self.bar = None
        self.pending = []  # losses still on the device
        self.bad_losses = 0
        self.first_step = 0
        self.epoch_start = self.first_step_end = 0.0

    def on_train_epoch_begin(self, run_context):
        self.epoch_start, self.first_step = time.monotonic(), self.history.step
        self.bar = tqdm(
            total=self.history.steps_per_epoch * self.batch_size,
            initial=self.history.step * self.batch_size,
            desc=f"epoch {self.history.epoch + 1}/{self.epochs}",
            unit="img",
            leave=False,
            disable=None if self.log else True,
        )

    def on_train_step_end(self, run_context):
        self.pending.append(run_context.original_args().net_outputs)
        self.history.step += 1
        if self.history.step == self.first_step + 1:
            self.fetch()
            self.first_step_end = time.monotonic()
        elif len(self.pending) >= LOSS_INTERVAL or is_save_point(self.history, self.save_every):
            self.fetch()  # a checkpoint holds the losses before it, and follows none that is bad
        self.bar.update(self.batch_size)
        if self.history.step % self.log_every == 0 and not self.history.is_epoch_complete:
            self.fetch()
            self.report()

    def fetch(self):
        """Take the pending losses over into the history."""
        losses = [float(loss.asnumpy()) for loss in self.pending]
        self.pending = []
        for loss in losses:
            self.history.losses.append(loss)
            self.check(loss)
        if losses:
            self.bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)

    def check(self, loss):
        """End the run on a loss that is no number, unless a loss scale can still help."""
        self.bad_losses = 0 if math.isfinite(loss) else self.bad_losses + 1
        if self.bad_losses > (0 if self.train_step.scaler is None else MAX_BAD_LOSSES):
            batch, epoch = len(self.history.losses), self.history.epoch + 1
            number = self.history.epoch * self.history.steps_per_epoch + batch
            last = self.last_checkpoint
            saved = f"the last good checkpoint is {last}" if os.path.exists(last) else "no checkpoint was saved before"
            raise UserError(
                f"the loss is {loss} at step {number} (batch {batch} of epoch {epoch}); {saved}; "
                "a lower schedule.learning_rate or optimizer.clip_norm may help"
            )

    def speed(self):
        """Images a second since the first step of the epoch; None before the second one."""
        steps, seconds = self.history.step - self.first_step - 1, time.monotonic() - self.first_step_end
        return steps * self.batch_size / seconds if steps > 0 else None

    def rate(self):
        """Learning rate of the newest update."""
        batches = self.history.epoch * self.history.steps_per_epoch + self.history.step
        return self.rates[(batches - 1) // self.train_step.accumulation_steps]

    def report(self):
        """Print and log a line in the middle of an epoch."""
        if not self.log:
            return
        done, losses = f"{self.history.step}/{self.history.steps_per_epoch}", self.history.losses[-self.log_every :]
        speed = self.speed()
        message = f"epoch {self.history.epoch + 1}/{self.epochs}  batch {done}  train_loss {mean_loss(losses):.4g}"
        message += f"  learning_rate {self.rate():.4g}" + (f"  images_per_second {speed:.4g}" if speed else "")
        tqdm.write(message)
        self.log(message)

    def on_train_epoch_end(self, run_context):
        self.fetch()
        self.bar.close()
        history = self.history
        if not history.is_epoch_complete:
            return
        batches = (history.epoch + 1) * history.steps_per_epoch
        row = {"epoch": history.epoch + 1, "step": batches // self.train_step.accumulation_steps}
        row["learning_rate"] = self.rate()
        row["train_loss"] = mean_loss(history.losses)
        if self.train_step.scaler is not None:
            row["skipped_updates"] = int(self.train_step.skipped_updates.asnumpy())
            row["loss_scale"] = self.train_step.loss_scale()
        if self.speed():
            row["images_per_second"] = self.speed()
        row["seconds"] = time.monotonic() - self.epoch_start
        history.rows.append(row)


class MeanStatistics(mindspore.Callback):
    """Before an evaluation and a checkpoint, set running statistics to their mean over all processes."""

    def __init__(self, history, step, parameters, save_every):
        super().__init__()
        self.history, self.train_step, self.parameters, self.save_every = history, step, parameters, save_every

    def on_train_step_end(self, run_context):
        if is_save_point(self.history, self.save_every):
            self.on_train_epoch_end(run_context)

    def on_train_epoch_end(self, run_context):
        if self.history.ranks > 1:
            mean_over_ranks(self.parameters)
            self.train_step.keep_statistics()


class Evaluation(mindspore.Callback):
    """The task's metrics into the row, every few epochs and at the end of the run."""

    def __init__(self, history, evaluate, epochs, every=1):
        super().__init__()
        self.history, self.evaluate, self.epochs, self.every = history, evaluate, epochs, every

    def on_train_epoch_end(self, run_context):
        number = self.history.epoch + 1
        if self.history.is_epoch_complete and (number == self.epochs or number % self.every == 0):
            metrics = self.evaluate()
            metrics.pop("images_per_second", None)  # the row has training's
            self.history.rows[-1].update(metrics)


class NextEpoch(mindspore.Callback):
    """Count the epoch as done, once its row is filled and before anything is saved."""

    def __init__(self, history):
        super().__init__()
        self.history = history

    def on_train_epoch_end(self, run_context):
        if self.history.is_epoch_complete:
            self.history.finish_epoch()


class Saving(mindspore.Callback):
    """Checkpoints, one line an epoch, `metrics.csv` and `curves.png`.

    Args:
        history, folder: of the run.
        state: `TrainingState`.
        network: whose weights are the best ones to keep.
        metric: that decides which are.
        keep: how many to keep.
        save_every: batches between checkpoints inside an epoch; 0 for none.
    """

    def __init__(self, history, folder, state, network, metric, epochs, keep=1, save_every=0):
        super().__init__()
        self.history, self.folder, self.state, self.network = history, folder, state, network
        self.metric, self.epochs, self.keep, self.save_every = metric, epochs, keep, save_every

    def on_train_step_end(self, run_context):
        if is_save_point(self.history, self.save_every):
            self.state.save(self.folder.last)

    def on_train_epoch_end(self, run_context):
        if self.history.step > 0:  # stopped inside an epoch
            self.state.save(self.folder.last)
            return
        row = self.history.rows[-1]
        is_best = self.metric in row and self.keep_if_good(row[self.metric], row["epoch"])
        self.state.save(self.folder.last)
        self.folder.remove_others([epoch for _, epoch in self.history.kept] if self.keep > 1 else [])
        message = format_row(row, self.epochs) + (" (best)" if is_best else "")
        tqdm.write(message)
        self.folder.log(message)
        self.folder.write_metrics(self.history.rows)
        self.folder.draw_curves(self.history.rows, self.metric)

    def keep_if_good(self, value, epoch) -> bool:
        """Save the weights if they are among the best; whether they are the best."""
        kept = [*self.history.kept, (value, epoch)] if math.isfinite(value) else self.history.kept
        self.history.kept = sorted(kept, key=lambda item: -item[0])[: self.keep]  # of equal ones the oldest first
        epochs = [number for _, number in self.history.kept]
        if epoch in epochs and self.keep > 1:
            save_weights(self.network, self.folder.kept(epoch))
        is_best = epochs[:1] == [epoch]
        if is_best:
            save_weights(self.network, self.folder.best)
        return is_best


def mean_loss(losses) -> float:
    """Mean over the batches that were not skipped; nan if there are none."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    return sum(finite) / len(finite) if finite else math.nan


def is_save_point(history, save_every) -> bool:
    """Whether a checkpoint is due inside an epoch; its end has one of its own."""
    return save_every > 0 and history.step % save_every == 0 and not history.is_epoch_complete


def format_row(row, epochs) -> str:
    """A row as one line of text."""
    parts = [f"epoch {row['epoch']}/{epochs}"]
    for key, value in row.items():
        if key not in ("epoch", "step", "images"):
            parts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return "  ".join(parts)
