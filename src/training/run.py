"""The training loop."""

import math

import numpy as np

from src.inference.finite import FiniteNetwork
from src.training.profiling import profile_batches
from src.training.progress import Progress, StopSignals, format_row
from src.weights.files import save_weights

LOSS_INTERVAL = 10  # batches after which losses are fetched from the device


def train(run, folder, val_data) -> bool:
    """Train from where the run's history stands to its end, or to a signal.

    Args:
        run: `Run`.
        folder: `RunFolder`, into which the main process writes.
        val_data: `Dataset` to evaluate on.

    Returns:
        Whether the run is whole.

    Raises:
        UserError: when the loss is no longer a number, or a file cannot be written.
        KeyboardInterrupt: on a second signal, or with several processes on the first.
    """
    history, progress = run.history, Progress(run, folder)
    with profile_batches(run, folder) as train_on_next, StopSignals(run.ranks) as signals:
        while not (is_over(run) or signals.requested):
            run.train_step.set_train()  # an evaluation has left the network in its own mode
            progress.start_epoch()
            while not history.is_epoch_complete and not (signals.requested and is_update_whole(run)):
                stop = next_stop(run) if progress.is_timed else history.batch + 1
                with signals.compiling():
                    losses = run_batches(run, train_on_next, stop, progress.bar, signals)
                progress.record(losses)
                if history.batch % run.config.train.log_every == 0 and not history.is_epoch_complete:
                    progress.report()
                if is_save_point(run):
                    save_state(run, folder)
            progress.bar.close()
            if not history.is_epoch_complete:
                save_state(run, folder)
                return False

            row = finish_epoch(run, progress, val_data)
            if run.ranks.is_main:
                is_best = keep_best(run, folder, row)
                run.state.save(folder.last)
                write_reports(run, folder, is_best)
    if is_over(run) and history.epoch < run.epochs and run.ranks.is_main:
        folder.tell(f"no better {run.metric} in {run.config.train.patience} evaluations in a row: the run ends")
    return is_over(run)


def finish_epoch(run, progress, val_data) -> dict:
    """Sum up an epoch whose batches are done, in the history as well: a row with the metrics, where they are due."""
    row = progress.row()
    run.settle()
    if is_evaluated(run):
        row.update(evaluate(run, val_data))
    progress.summary.write_epoch(row, is_evaluated(run))
    run.history.finish_epoch(row)
    return row


def is_over(run) -> bool:
    """Whether all epochs are done, or `train.patience` evaluations in a row have not been better than one before."""
    values = [row[run.metric] for row in run.history.rows if run.metric in row]
    return run.history.epoch >= run.epochs or has_stalled(values, run.direction, run.config.train.patience)


def has_stalled(values, direction, patience) -> bool:
    """Whether the last `patience` evaluations have not been better than one before.

    Args:
        values: of the metric at each evaluation; nan and inf are never better.
        direction: 1 where the highest value is the best, -1 where the lowest one is.
        patience: see `TrainSettings`; None: never.
    """
    values = [direction * value if math.isfinite(value) else -math.inf for value in values]
    best = max(range(len(values)), key=values.__getitem__, default=0)  # of equal ones the first
    return patience is not None and len(values) - 1 - best >= patience


def run_batches(run, train_on_next, stop, bar, signals) -> list:
    """Train on batches until `stop` of the epoch are done, or until a signal has come and an update is whole.

    Args:
        run: `Run`.
        train_on_next: see `feed_batches`.
        stop: number of batches in the epoch.
        bar: progress bar, in images.
        signals: `StopSignals`.

    Returns:
        The loss of each batch, still on the device.
    """
    losses = []
    while run.history.batch < stop:
        losses.append(train_on_next())
        run.history.batch += 1
        bar.update(run.images_per_batch)
        if signals.requested and is_update_whole(run):
            break
    return losses


def next_stop(run) -> int:
    """Find the number of batches of the epoch at which losses, a log line, a checkpoint or its end are next due."""
    history, settings = run.history, run.config.train
    intervals = [LOSS_INTERVAL, settings.log_every]
    if settings.save_every:
        intervals.append(settings.save_every * run.batches_per_update)
    due = [(history.batch // interval + 1) * interval for interval in intervals]
    return min(*due, history.batches_per_epoch)


def is_update_whole(run) -> bool:
    """Whether no gradients are waiting for others to make an update."""
    return run.history.batch % run.batches_per_update == 0


def is_save_point(run) -> bool:
    """Whether a checkpoint is due inside an epoch; its end has one of its own."""
    every = (run.config.train.save_every or 0) * run.batches_per_update
    return every > 0 and run.history.batch % every == 0 and not run.history.is_epoch_complete


def is_evaluated(run) -> bool:
    """Whether an evaluation is due at the end of the current epoch."""
    number = run.history.epoch + 1
    return number == run.epochs or number % run.config.train.evaluate_every == 0


def evaluate(run, val_data) -> dict:
    """Compute the task's metrics of the weights as they are; their speed is left out, the row has training's.

    Where the network has given nan or inf on any process, the metric of the best is nan: such weights are never that.
    """
    network = FiniteNetwork(run.evaluated)
    metrics = run.task.evaluate(network, val_data)
    if run.ranks.sum(np.array([not network.is_finite], np.int64)).any():
        metrics[run.metric] = math.nan
    return {key: value for key, value in metrics.items() if key != "images_per_second"}


def save_state(run, folder) -> None:
    """Write the checkpoint from which the run can go on."""
    run.settle()
    if run.ranks.is_main:
        run.state.save(folder.last)


def keep_best(run, folder, row) -> bool:
    """Save the weights if they are among the best.

    Returns:
        Whether they are the best.
    """
    history, keep = run.history, run.config.train.keep_best
    if not math.isfinite(run.value_of(row)):
        return False
    kept = [*history.kept, (row[run.metric], row["epoch"])]
    history.kept = sorted(kept, key=lambda item: -run.direction * item[0])[:keep]  # of equal ones the oldest first
    epochs = [epoch for _, epoch in history.kept]
    if row["epoch"] in epochs and keep > 1:
        save_weights(run.weights, folder.kept(row["epoch"]))
    is_best = epochs[0] == row["epoch"]
    if is_best:
        save_weights(run.weights, folder.best)
    return is_best


def write_reports(run, folder, is_best) -> None:
    """Tell about the epoch that is over, and leave no more checkpoints than are to be kept."""
    history = run.history
    folder.remove_others([epoch for _, epoch in history.kept] if run.config.train.keep_best > 1 else [])
    message = format_row(history.rows[-1], run.epochs) + (" (best)" if is_best else "")
    folder.tell(message)
    folder.write_metrics(history.rows)
    folder.draw_curves(history.rows, run.metric)
