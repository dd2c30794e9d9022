"""What a run says while it goes on: the progress bar, lines of the log, and the row of each epoch.

It also ends a run whose loss is no number, and lets Ctrl-C end one between two updates.
"""

import math
import os
import signal
import time
from contextlib import nullcontext

from tqdm import tqdm

from src.errors import UserError
from src.interrupt import SIGNALS, ExitOnInterrupt
from src.training.summary import Summary

MAX_BAD_LOSSES = 50  # in a row, where a loss scale may still help


class StopSignals:
    """While a `with` block lasts, Ctrl-C or a termination signal asks to stop at the next update; a second one aborts.

    With several processes the first one aborts: they might stop at different updates and wait for each other for ever.
    So it does while `compiling` lasts, when it ends the process.

    Attributes:
        requested: whether the run is to stop.
    """

    def __init__(self, ranks):
        self.ranks, self.requested, self.previous = ranks, False, {}
        self.first_is_done = False

    def __enter__(self):
        self.previous = {number: signal.signal(number, self.handle) for number in SIGNALS}
        self.descriptor = signal.set_wakeup_fd(-1)  # of `ExitOnInterrupt`
        return self

    def __exit__(self, *error):
        signal.set_wakeup_fd(self.descriptor)
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def compiling(self):
        """Give the context of the first batch, which may take minutes and behind which nothing is lost."""
        self.first_is_done, first = True, not self.first_is_done
        return ExitOnInterrupt() if first else nullcontext()

    def handle(self, number, frame):
        """Answer a signal."""
        if self.requested or self.ranks.count > 1:
            raise KeyboardInterrupt
        self.requested = True
        tqdm.write("stopping after this update; once more to abort at once")


class Progress:
    """The progress bar, log lines and rows of a run.

    The first batch of an epoch does not count for the speed: it may compile the graph or fill the pipeline.

    Args:
        run: `Run`.
        folder: `RunFolder`.

    Attributes:
        bar: the progress bar of the current epoch, in images.
        summary: `Summary`.
    """

    def __init__(self, run, folder):
        self.run, self.folder, self.history = run, folder, run.history
        self.bar, self.summary = None, Summary(run, folder)
        self.bad_losses = 0
        self.epoch_start = 0.0
        self.timed_batches = self.timed_start = None  # where the timing of the speed began

    def start_epoch(self) -> None:
        """Begin, or go on with, the epoch at which the history stands."""
        self.epoch_start, self.timed_batches = time.monotonic(), None
        self.bar = tqdm(
            total=self.history.batches_per_epoch * self.run.images_per_batch,
            initial=self.history.batch * self.run.images_per_batch,
            desc=f"epoch {self.history.epoch + 1}/{self.run.epochs}",
            unit="img",
            leave=False,
            disable=None if self.run.ranks.is_main else True,
        )

    def record(self, losses) -> None:
        """Take losses, still on the device, over into the history.

        Raises:
            UserError: when one is not a finite number, unless a loss scale can still help.
        """
        for loss in losses:
            self.history.losses.append(float(loss.asnumpy()))
            self.check(self.history.losses[-1])
        if not self.is_timed:
            self.timed_batches, self.timed_start = self.history.batch, time.monotonic()
        if losses:
            self.bar.set_postfix(loss=f"{self.history.losses[-1]:.3f}", refresh=False)

    def check(self, loss) -> None:
        """End the run on a loss that is no number, unless a loss scale can still help."""
        self.bad_losses = 0 if math.isfinite(loss) else self.bad_losses + 1
        if self.bad_losses > (0 if self.run.train_step.scaler is None else MAX_BAD_LOSSES):
            batch, epoch, last = len(self.history.losses), self.history.epoch + 1, self.folder.last
            saved = f"the last good checkpoint is {last}" if os.path.exists(last) else "no checkpoint was saved before"
            raise UserError(
                f"the loss is {loss} at batch {batch} of epoch {epoch}; {saved}; "
                "a lower schedule.learning_rate or optimizer.clip_norm may help"
            )

    @property
    def is_timed(self) -> bool:
        """Whether the first batch of the epoch is over."""
        return self.timed_batches is not None

    def speed(self):
        """Compute images a second since the first batch of the epoch; None before the second one."""
        if self.timed_batches in (None, self.history.batch):
            return None
        seconds = time.monotonic() - self.timed_start
        return (self.history.batch - self.timed_batches) * self.run.images_per_batch / seconds

    def rate(self) -> float:
        """Give the learning rate of the newest update; before any, that of the first."""
        return self.run.rates[max(0, self.run.train_step.updates_tried() - 1)]

    def report(self) -> None:
        """Print and log a line in the middle of an epoch."""
        if not self.run.ranks.is_main:
            return
        history, losses = self.history, self.history.losses[-self.run.config.train.log_every :]
        message = f"epoch {history.epoch + 1}/{self.run.epochs}  batch {history.batch}/{history.batches_per_epoch}"
        values = {"train_loss": mean_loss(losses), "learning_rate": self.rate()}
        if self.speed():
            values["images_per_second"] = self.speed()
        message += "".join(f"  {name} {value:.4g}" for name, value in values.items())
        self.folder.tell(message)
        self.summary.write_scalars("batch", values)

    def row(self) -> dict:
        """Sum up a whole epoch: number, updates since the start, learning rate, mean loss, speed, seconds."""
        train_step = self.run.train_step
        row = {"epoch": self.history.epoch + 1, "step": self.history.batches_done // self.run.batches_per_update}
        row["learning_rate"] = self.rate()
        row["train_loss"] = mean_loss(self.history.losses)
        if train_step.scaler is not None:
            row["skipped_updates"] = int(train_step.skipped_updates.asnumpy())
            row["loss_scale"] = train_step.loss_scale()
        if self.speed():
            row["images_per_second"] = self.speed()
        row["seconds"] = time.monotonic() - self.epoch_start
        return row


def mean_loss(losses) -> float:
    """Average over the batches that were not skipped; nan if there are none."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    return sum(finite) / len(finite) if finite else math.nan


def format_row(row, epochs) -> str:
    """Put a row into one line of text."""
    parts = [f"epoch {row['epoch']}/{epochs}"]
    for key, value in row.items():
        if key not in ("epoch", "step", "images"):
            parts.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return "  ".join(parts)
