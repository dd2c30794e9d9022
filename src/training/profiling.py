"""Which operators take the time of training: MindSpore's profiler over some batches of a run, `train.profile`.

Known limits: the operators of CPU and Ascend only. What the profiler calls its files and columns on Ascend is from its
documentation; no such device was at hand.
"""

import csv
import time
from contextlib import contextmanager

import mindspore
from mindspore import profiler
from mindspore.profiler import ProfilerActivity

from src.errors import UserError
from src.files import make_folder
from src.training.feed import feed_batches

WARM_UP = 2  # batches in front of the profiled ones: the first compiles the graph
TABLE_ROWS = 10
# device: activities to watch, file with a row for each type of operator, its columns, milliseconds in its unit of time
SOURCES = {
    "CPU": (
        (ProfilerActivity.CPU,),
        "cpu_op_type_info_*.csv",
        ("op_type", "type_occurrences", "total_compute_time"),
        1.0,
    ),
    "Ascend": (
        (ProfilerActivity.CPU, ProfilerActivity.NPU),
        "op_statistic*.csv",
        ("OP Type", "Count", "Total Time(us)"),
        1e-3,
    ),
}


def check_profile(batches: int, device_target: str) -> None:
    """Raise `UserError` if batches are to be profiled on a device whose operators are not known."""
    if batches and device_target not in SOURCES:
        raise UserError(f"train.profile: {device_target} has no times of operators, only {' and '.join(SOURCES)} have")


@contextmanager
def profile_batches(run, folder):
    """Give what `feed_batches` gives; on the main process it profiles `train.profile` batches.

    They are the first ones behind the warm-up, in this process, and of one epoch.

    Args:
        run: `Run`.
        folder: `RunFolder`; its `profile` receives the profiler's files, its log the slowest operators.
    """
    with feed_batches(run) as train_on_next:
        if not (run.config.train.profile and run.ranks.is_main):
            yield train_on_next
            return
        batches = ProfiledBatches(run, folder, train_on_next)
        try:
            yield batches
        finally:
            batches.finish()  # of a run that is stopped before
            if 0 < batches.calls <= WARM_UP:
                folder.tell(f"profile: none, the run has no batch behind the warm-up of {WARM_UP}")


class ProfiledBatches:
    """The function of `profile_batches`."""

    def __init__(self, run, folder, train_on_next):
        self.history, self.wanted = run.history, run.config.train.profile
        self.folder, self.train_on_next = folder, train_on_next
        self.calls, self.profile, self.start = 0, None, 0.0
        self.device = mindspore.get_context("device_target")

    def __call__(self):
        if self.calls == WARM_UP:
            self.profile, self.start = self._start(), time.monotonic()
        loss = self.train_on_next()
        self.calls += 1
        is_last = self.history.batch + 1 == self.history.batches_per_epoch  # an evaluation would count as well
        if self.profile is not None and (is_last or self.calls == WARM_UP + self.wanted):
            loss.asnumpy()  # waits for the device
            self.finish()
        return loss

    def _start(self):
        path = self.folder.path / "profile"
        make_folder(path)
        # sets the path, and where the profiler's own files hold no table, has them analysed
        handler = profiler.tensorboard_trace_handler(str(path), analyse_flag=self.device != "CPU")
        schedule = profiler.schedule(wait=0, warmup=1, active=1, repeat=1)  # any other one logs warnings
        profile = profiler.profile(activities=list(SOURCES[self.device][0]), schedule=schedule, on_trace_ready=handler)
        profile.step()
        return profile

    def finish(self) -> None:
        """End the profile, if one is going on, and tell what it says."""
        if self.profile is None:
            return
        seconds = time.monotonic() - self.start
        self.profile.step()
        self.profile.stop()
        self.profile = None
        path = self.folder.path / "profile"
        found = sorted(path.glob("*/"), key=lambda folder: folder.stat().st_mtime)
        operators = read_operators(found[-1], self.device) if found else []
        for line in format_operators(operators, self.calls - WARM_UP, seconds, path):
            self.folder.tell(line)


def read_operators(folder, device: str) -> list:
    """Read what the profiler has written into a folder: [(type, calls, milliseconds)], the slowest first."""
    _, file, columns, unit = SOURCES[device]
    operators = []
    for path in folder.rglob(file):
        with open(path, encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                kind, calls, duration = (row[column] for column in columns)
                operators.append((kind, int(calls), float(duration) * unit))
    return sorted(operators, key=lambda operator: -operator[2])


def format_operators(operators, batches: int, seconds: float, path) -> list:
    """Put the slowest operators into the lines of a table.

    Args:
        operators: from `read_operators`.
        batches, seconds: in which they ran.
        path: of the profiler's files.
    """
    if not operators:
        return [f"profile: the profiler has left no times of operators in {path}"]
    total = sum(operator[2] for operator in operators)
    shown = operators[:TABLE_ROWS]
    width = max(len("operator"), *(len(kind) for kind, _, _ in shown))
    lines = [
        f"profile of {batches} batches in {1000 * seconds:.0f} ms: "
        f"{len(operators)} types of operators, {total:.0f} ms; more in {path}",
        f"  {'operator':{width}}  {'calls':>7}  {'total ms':>10}  {'share':>7}",
    ]
    for kind, calls, duration in shown:
        lines.append(f"  {kind:{width}}  {calls:7}  {duration:10.2f}  {duration / total:7.1%}")
    return lines
