"""The folder of a training run: its settings, log, metrics, curves and checkpoints."""

import csv
import io
from pathlib import Path

from matplotlib.figure import Figure

from src.checkpoint import atomic_path, write_text
from src.command_line import RUN_CONFIG
from src.errors import UserError

RUNS = Path("runs")


class RunFolder:
    """Paths and writers of one run. Every file but the log is replaced as a whole.

    Args:
        path: the folder; None for a new one below `runs/`, named `name` and numbered where that exists.

    Raises:
        UserError: if `path` exists and is not empty, or cannot be made.
    """

    def __init__(self, path=None, name="run"):
        if path is None:
            number = 1
            while (RUNS / _numbered(name, number)).exists():
                number += 1
            path = RUNS / _numbered(name, number)
        self.path = Path(path)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{self.path}: exists and is not empty; --output_dir names a new folder for the run")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be made: {error.strerror}") from None
        self.config, self.log_file = self.path / RUN_CONFIG, self.path / "train.log"
        self.best, self.last = self.path / "best.ckpt", self.path / "last.ckpt"
        self.metrics, self.curves = self.path / "metrics.csv", self.path / "curves.png"

    def evaluation_command(self) -> str:
        """Command line that evaluates the best checkpoint."""
        return f"python eval.py --config {self.config} --checkpoint_path {self.best}"

    def write_settings(self, text: str, command: str) -> None:
        """Keep the resolved settings, the command that made them, and the one to evaluate the result."""
        write_text(self.config, f"# {command}\n{text}")
        write_text(self.path / "evaluate.sh", f"#!/bin/sh\n# from the project's folder\n{self.evaluation_command()}\n")

    def log(self, message: str) -> None:
        """Append a line to the log."""
        with open(self.log_file, "a", encoding="utf-8") as file:
            file.write(message + "\n")

    def write_metrics(self, rows) -> None:
        """Write `metrics.csv`, one row a dict; a column for every key that any row has."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics, text.getvalue())

    def draw_curves(self, rows, metric: str) -> None:
        """Draw loss, `metric` and learning rate by epoch into `curves.png`."""
        figure = Figure(figsize=(12, 3.6), layout="constrained")
        panels = (
            ("loss", {"training": "train_loss", "validation": "loss"}),
            (metric.replace("_", " "), {"validation": metric}),
            ("learning rate", {"": "learning_rate"}),
        )
        for axis, (title, lines) in zip(figure.subplots(1, len(panels)), panels):
            for label, key in lines.items():
                points = [(row["epoch"], row[key]) for row in rows if key in row]
                if points:
                    axis.plot(*zip(*points), marker="." if len(points) < 50 else "", label=label)
            axis.set(title=title, xlabel="epoch")
            axis.grid(alpha=0.3)
            if len(lines) > 1:
                axis.legend()
        with atomic_path(self.curves) as temporary:
            figure.savefig(temporary, dpi=100, format="png")


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
