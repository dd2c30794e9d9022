"""The folder of a training run: its settings, log, metrics, curves and checkpoints."""

import csv
import io
import os
import weakref
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from src.errors import UserError
from src.files import TEMPORARY, atomic_path, make_folder, write_text

RUNS = Path("runs")
RUN_CONFIG = "config.yaml"  # the settings of a run, kept beside its checkpoints
LAST_CHECKPOINT = "last.ckpt"
AUTO = "auto"
# of a row of an epoch; all others are metrics that lie between 0 and 1
NOT_METRICS = (
    *("epoch", "step", "learning_rate", "train_loss", "skipped_updates", "loss_scale", "images_per_second", "seconds"),
    *("loss", "images"),
)
MOST_METRICS = 3  # in a figure: detection has twelve


class RunFolder:
    """Paths and writers of one run. Every file but the log is replaced as a whole.

    Args:
        path: the folder, from `new_folder` or `find_run`.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.config, self.log_file = self.path / RUN_CONFIG, self.path / "train.log"
        self.best, self.last = self.path / "best.ckpt", self.path / LAST_CHECKPOINT
        self.metrics, self.curves = self.path / "metrics.csv", self.path / "curves.png"

    def begin(self, settings: str, command: str, rows, messages) -> None:
        """Make the folder, or clean the one of a run that goes on, and write what is known at its start.

        From now on no other run can begin in it, see `lock`.

        Args:
            settings: the resolved settings, YAML.
            command: that started the run.
            rows: of the epochs done; a killed run may have saved more than it wrote.
            messages: lines for the log, which are printed as well.

        Raises:
            UserError: if it cannot be written, or another run is in it.
        """
        self.make()
        self.lock()
        self.remove_leftovers()
        self.write_settings(settings, command)
        if rows:
            self.write_metrics(rows)
        for message in messages:
            print(message)
            self.log(message)

    def make(self) -> None:
        """Make the folder where it is missing."""
        make_folder(self.path)

    def lock(self) -> None:
        """Lock the folder itself, which leaves no file behind, as long as this object and the process are there.

        File systems without locks, and Windows, go without.

        Raises:
            UserError: if another run has locked it.
        """
        try:
            import fcntl

            descriptor = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: another run is going on in it; --output_dir names a new folder") from None
        except (ImportError, OSError):
            pass

    def remove_leftovers(self) -> None:
        """Remove what a killed run has left half written."""
        for leftover in self.path.glob(f".*{TEMPORARY}*"):
            leftover.unlink(missing_ok=True)

    def kept(self, epoch: int) -> Path:
        """Name the checkpoint of an epoch that is among the best."""
        return self.path / f"epoch_{epoch}.ckpt"

    def remove_others(self, epochs) -> None:
        """Remove the checkpoints of all epochs but these."""
        wanted = {self.kept(epoch) for epoch in epochs}
        for path in self.path.glob("epoch_*.ckpt"):
            if path not in wanted:
                path.unlink()

    def evaluation_command(self) -> str:
        """Give the command line that evaluates the best checkpoint."""
        return f"python eval.py --config {self.config} --checkpoint_path {self.best}"

    def write_settings(self, text: str, command: str) -> None:
        """Write the resolved settings, the command that made them, and the one to evaluate the result."""
        write_text(self.config, f"# {command}\n{text}")
        write_text(self.path / "evaluate.sh", f"#!/bin/sh\n# from the project's folder\n{self.evaluation_command()}\n")

    def log(self, message: str) -> None:
        """Append a line to the log."""
        try:
            with open(self.log_file, "a", encoding="utf-8") as file:
                file.write(message + "\n")
        except OSError as error:
            raise UserError(f"{self.log_file}: cannot be written: {error.strerror}") from None

    def tell(self, message: str) -> None:
        """Print a line, also beside a progress bar, and append it to the log."""
        tqdm.write(message)
        self.log(message)

    def write_metrics(self, rows) -> None:
        """Write `metrics.csv`, one row a dict; a column for every key that any row has."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics, text.getvalue())

    def draw_curves(self, rows, metric: str) -> None:
        """Draw by epoch into `curves.png`: losses, validation metrics, learning rate and, if any, the loss scale.

        Args:
            rows: of the epochs.
            metric: of the best checkpoint; a few others that the rows have are drawn beside it.
        """
        metrics = choose_metrics(rows, metric)
        panels = [
            ("loss", {"training": "train_loss", "validation": "loss"}),
            ("validation", {key.replace("_", " "): key for key in metrics}),
            ("learning rate", {"learning rate": "learning_rate"}),
        ]
        if any("loss_scale" in row for row in rows):
            panels.append(("loss scale", {"loss scale": "loss_scale"}))
        figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
        for axis, (title, lines) in zip(figure.subplots(1, len(panels)), panels):
            for label, key in lines.items():
                points = [(row["epoch"], row[key]) for row in rows if key in row]
                if points:
                    axis.plot(*zip(*points), marker="." if len(points) < 50 else "", label=label)
            axis.set(title=title, xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.3)
            if title == "loss scale":
                axis.set_yscale("log", base=2)
            if len(axis.lines) > 1 or (axis.lines and title == "validation"):
                axis.legend()
        with atomic_path(self.curves) as temporary:
            figure.savefig(temporary, dpi=100, format="png")


def choose_metrics(rows, metric: str) -> list:
    """Choose the metrics of a figure: that of the best checkpoint and the first others that rows have, but no loss."""
    names = dict.fromkeys(key for row in rows for key in row if key not in NOT_METRICS)
    names = list({metric: None, **names} if metric in names else names)
    return names[:MOST_METRICS]


def new_folder(path, name: str) -> Path:
    """Choose the folder of a new run: `path`, or if None one below `runs/` that is not there, `name` and a number.

    Raises:
        UserError: if `path` exists and is not empty.
    """
    if path is None:
        return RUNS / _numbered(name, len(_runs_of(name)) + 1)
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            f"{path}: exists and is not empty; --output_dir names a new folder for the run, --resume goes on with a run"
        )
    return path


def find_run(resume: str, path, name: str):
    """Find the folder of a run to go on with, and its checkpoint.

    Args:
        resume: `AUTO`, a run's folder, or its checkpoint.
        path: for `AUTO`, the folder; None for the newest that `new_folder` has made.
        name: see `new_folder`.

    Returns:
        (folder or None, checkpoint or None): for `AUTO` no folder if there is none, no checkpoint if none is saved yet.

    Raises:
        UserError: if there is no run to go on with.
    """
    if resume != AUTO:
        given = Path(resume)
        checkpoint = given / LAST_CHECKPOINT if given.is_dir() else given
        if not checkpoint.is_file():
            raise UserError(f"{checkpoint}: no such checkpoint; --resume takes a run's folder or checkpoint, or {AUTO}")
        if not (checkpoint.parent / RUN_CONFIG).is_file():
            raise UserError(f"{checkpoint}: is not in the folder of a run, which has a {RUN_CONFIG}")
        if path is not None and Path(path).resolve() != checkpoint.parent.resolve():
            raise UserError(f"--output_dir {path}: a run goes on in its own folder, {checkpoint.parent}")
        return checkpoint.parent, checkpoint
    if path is None:
        runs = _runs_of(name)
        folder = runs[-1] if runs else None
    else:
        folder = Path(path) if Path(path).is_dir() and any(Path(path).iterdir()) else None
    if folder is None:
        return None, None
    checkpoint = folder / LAST_CHECKPOINT
    if not checkpoint.is_file() and not (folder / RUN_CONFIG).is_file():
        raise UserError(f"{folder}: is not a run: it has neither {LAST_CHECKPOINT} nor {RUN_CONFIG}")
    return folder, checkpoint if checkpoint.is_file() else None


def _runs_of(name: str) -> list:
    """List the folders below `runs/` that `new_folder` has made for a name, in order."""
    folders = []
    while (RUNS / _numbered(name, len(folders) + 1)).exists():
        folders.append(RUNS / _numbered(name, len(folders) + 1))
    return folders


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
