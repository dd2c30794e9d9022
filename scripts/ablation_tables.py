"""The runs of scripts/ablation.py, what they have come to, and the table that compares them.

A row is compared with the first one by the differences between runs of equal seed. Student's t gives the interval of
their mean: it tells how far chance in training alone would move it, not how other images would.
"""

import csv
import io
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Tuple

from src.config import check_same_settings, load_config, read_text
from src.errors import UserError
from src.files import write_csv, write_text
from src.settings import with_class_names
from src.tasks import SCHEMAS, create_task
from src.training.run import has_stalled
from src.training.run_folder import AUTO, RunFolder, find_run
from src.training.schedule import total_epochs
from src.training.setup import choose_metric

CONFIDENCE = 0.95
LARGEST_QUANTILE = 100.0  # above that of one degree of freedom, 12.7
# settings that do not change a run's result
HARMLESS = ("train.log_every:", "train.save_every:", "train.keep_best:", "data.workers:", "data.worker_processes:")


@dataclass(frozen=True)
class Row:
    """A variant: its name, and its settings, (dotted key, value, source) each."""

    name: str
    overrides: Tuple

    @property
    def slug(self) -> str:
        """Give the name as a part of file names."""
        return re.sub(r"[^\w.]+", "-", self.name.lower()).strip("-.")


@dataclass(frozen=True)
class Trial:
    """A run of one row with one seed: all its settings, those that differ from the base as in `Row`, its folder."""

    row: Row
    seed: int
    config: Any
    overrides: Tuple
    folder: RunFolder

    @property
    def log(self) -> Path:
        """File of what train.py prints."""
        return self.folder.path.with_name(f"{self.folder.path.name}.log")

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, if `train.patience` does not end it before."""
        return total_epochs(self.config.schedule, self.config.train.epochs)

    @property
    def metric(self) -> Tuple[str, int]:
        """Name of the metric that counts, and its direction, see `choose_metric`."""
        return choose_metric(create_task(self.config), self.config.train.best_metric)

    def read_epochs(self) -> list:
        """Read `metrics.csv`: a dict of texts for each epoch that is done.

        Raises:
            UserError: if it is damaged.
        """
        path, metric = self.folder.metrics, self.metric[0]
        rows = list(csv.DictReader(io.StringIO(read_text(path)))) if path.exists() else []
        for number, row in enumerate(rows, 1):
            try:
                is_right = int(row["epoch"]) == number
                float(row.get(metric) or "nan")  # not every epoch need have an evaluation
            except (KeyError, TypeError, ValueError):
                is_right = False
            if not is_right:
                raise UserError(f"{path}:{number + 1}: is not epoch {number} with a number for {metric}")
        return rows

    def is_whole(self, rows) -> bool:
        """Whether the rows of `read_epochs` are those of a run that has ended."""
        metric, direction = self.metric
        values = [float(row[metric]) for row in rows if row.get(metric)]
        return len(rows) >= self.epochs or has_stalled(values, direction, self.config.train.patience)


@dataclass(frozen=True)
class Outcome:
    """What a run has come to: the value of its metric, or None and a text that says why."""

    value: Optional[float]
    state: str = ""


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        name: of the row.
        parameters, multiply_adds: of its network, the latter for one image.
        outcomes: {seed: `Outcome`}.
    """

    name: str
    parameters: int
    multiply_adds: int
    outcomes: dict

    @property
    def values(self) -> dict:
        """{seed: value} where there is one."""
        return {seed: outcome.value for seed, outcome in self.outcomes.items() if outcome.value is not None}


@dataclass(frozen=True)
class Comparison:
    """Mean of the paired differences to the reference, and its interval; (None, None) with a single pair."""

    difference: float
    low: Optional[float] = None
    high: Optional[float] = None

    @property
    def excludes_zero(self) -> Optional[bool]:
        """Whether the interval, if there is one, excludes zero."""
        return None if self.low is None else self.low > 0 or self.high < 0


def read_made(trial, is_report):
    """Read the settings of a run that was begun before; None if there is none.

    Raises:
        UserError: if they are others than the present ones, or the folder holds something else. A report does not ask
            where the data are.
    """
    folder, _ = find_run(AUTO, trial.folder.path, trial.row.slug)
    if folder is None:
        return None
    made, now = load_config(trial.folder.config, SCHEMAS), trial.config
    if not now.data.class_names:  # the run has those that its dataset told
        now = with_class_names(now, made.data.class_names)
    try:
        changes = check_same_settings(made, now)
    except UserError as error:
        changes = [str(error)]
    others = [line for line in changes if not line.startswith((*HARMLESS, "data.path:") if is_report else HARMLESS)]
    if others:
        raise UserError(f"{folder}: is a run with other settings: {'; '.join(others)}; --output_dir names a new folder")
    return made


def find_outcome(trial, rows, choice) -> Outcome:
    """Find what a run has come to.

    Args:
        trial: `Trial`.
        rows: from its `read_epochs`.
        choice: 'last' or 'best' epoch.
    """
    if not trial.is_whole(rows):
        return Outcome(None, f"{len(rows)} of {trial.epochs} epochs" if rows else "-")
    metric, direction = trial.metric
    values = [float(row.get(metric) or "nan") for row in rows]
    finite = [value for value in values if math.isfinite(value)]
    value = max(finite, key=lambda number: direction * number, default=math.nan) if choice == "best" else values[-1]
    return Outcome(value) if math.isfinite(value) else Outcome(None, "not a number")


def collect(trials, sizes, failures, choice) -> list:
    """Collect the `Entry` of each row, in order.

    Args:
        trials: of all rows and seeds.
        sizes: {name of a row: (parameters, multiply-adds)}.
        failures: {(name, seed): reason}.
        choice: 'last' or 'best' epoch.
    """
    outcomes = {name: {} for name in sizes}
    for trial in trials:
        outcome = find_outcome(trial, trial.read_epochs(), choice)
        has_failed = (trial.row.name, trial.seed) in failures
        outcomes[trial.row.name][trial.seed] = Outcome(None, "failed") if has_failed else outcome
    return [Entry(name, *size, outcomes[name]) for name, size in sizes.items()]


def compare(values, reference) -> Optional[Comparison]:
    """Compare two rows, {seed: value} each, over the seeds that both have; None without such seeds."""
    differences = [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]
    if not differences:
        return None
    mean = statistics.mean(differences)
    if len(differences) == 1:
        return Comparison(mean)
    margin = t_quantile(len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    return Comparison(mean, mean - margin, mean + margin)


def t_quantile(degrees) -> float:
    """Find the t that Student's distribution exceeds in size with a probability of 1 - `CONFIDENCE`, by bisection."""
    low, high = 0.0, LARGEST_QUANTILE
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_probability(middle, degrees) < CONFIDENCE else (low, middle)
    return high


def t_probability(t, degrees) -> float:
    """Compute the probability of a size up to `t`, by the finite sums for whole degrees of freedom.

    Source: Abramowitz & Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.
    """
    angle, is_odd = math.atan2(t, math.sqrt(degrees)), degrees % 2
    term, total = math.cos(angle) if is_odd else 1.0, 0.0
    for order in range(1 + is_odd, degrees, 2):
        total += term
        term *= order / (order + 1) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if is_odd else total


def compare_all(entries) -> list:
    """Compare all entries with the first: a `Comparison` or None each, None for the first."""
    return [None, *(compare(entry.values, entries[0].values) for entry in entries[1:])]


def describe(trials, choice) -> str:
    """Say what the numbers are."""
    made = [read_made(trial, is_report=True) for trial in trials]
    data = {config.data.path for config in filter(None, made)} or {trials[0].config.data.path}
    epochs, seeds = (dict.fromkeys(str(getattr(trial, name)) for trial in trials) for name in ("epochs", "seed"))
    metric, direction = trials[0].metric
    most = "at most " if any(trial.config.train.patience for trial in trials) else ""
    return (
        f"{metric}{' in %' if direction > 0 else ', the lower the better'}, of the {choice} of {most}"
        f"{' or '.join(epochs)} epochs; data: {', '.join(sorted(data))}; seeds: {', '.join(seeds)}. Differences are to "
        f"{trials[0].row.name}, between runs of equal seed, and their intervals are of Student's t, each for itself."
    )


def conclude(entries) -> str:
    """Say which rows differ from the first."""
    verdicts = [comparison and comparison.excludes_zero for comparison in compare_all(entries)]
    names = [entry.name for entry, is_separated in zip(entries, verdicts) if is_separated]
    if names:
        return f"The interval excludes zero for: {', '.join(names)}."
    if any(verdict is not None for verdict in verdicts):
        return "These data do not separate the rows: every interval contains zero."
    return "These data do not separate the rows: an interval needs two seeds in common with the first row."


def show_table(entries, direction):
    """Yield the lines of a Markdown table; metrics in percent, as all that are best at their highest are shares."""
    scale = 100 if direction > 0 else 1
    heads = ["row", "parameters", "multiply-adds", *(f"seed {seed}" for seed in entries[0].outcomes)]
    heads += ["mean", "standard deviation", "difference", f"{CONFIDENCE:.0%} interval", "excludes zero"]
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for entry, comparison in zip(entries, compare_all(entries)):
        cells = [entry.name.replace("|", "/"), f"{entry.parameters:,}", f"{entry.multiply_adds / 1e6:.1f} M"]
        cells += [outcome.state or f"{scale * outcome.value:.2f}" for outcome in entry.outcomes.values()]
        cells += ["" if value is None else f"{scale * value:.2f}" for value in summarise(entry.values)]
        yield f"| {' | '.join([*cells, *compared_cells(comparison, scale)])} |"


def compared_cells(comparison, scale) -> list:
    """Give the last three cells of a line, differences times `scale`."""
    if comparison is None:
        return ["", "", ""]
    difference = f"{scale * comparison.difference:+.2f}"
    if comparison.low is None:
        return [difference, "", ""]
    interval = f"{scale * comparison.low:+.2f} to {scale * comparison.high:+.2f}"
    return [difference, interval, "yes" if comparison.excludes_zero else "no"]


def summarise(values):
    """Compute mean and standard deviation of {seed: value}; None where there are too few."""
    numbers = list(values.values())
    return statistics.mean(numbers) if numbers else None, statistics.stdev(numbers) if len(numbers) > 1 else None


def write_results(folder, text, entries) -> None:
    """Write `results.md`, and `results.csv` with the plain numbers."""
    seeds = [f"seed_{seed}" for seed in entries[0].outcomes]
    heads = ["row", "parameters", "multiply_adds", *seeds, "mean", "standard_deviation"]
    table = [[*heads, "difference", "low", "high", "excludes_zero"]]
    for entry, other in zip(entries, compare_all(entries)):
        values = [outcome.value for outcome in entry.outcomes.values()]
        compared = [other.difference, other.low, other.high, other.excludes_zero] if other else [None] * 4
        table.append([entry.name, entry.parameters, entry.multiply_adds, *values, *summarise(entry.values), *compared])
    write_csv(folder / "results.csv", table)
    write_text(folder / "results.md", text)
