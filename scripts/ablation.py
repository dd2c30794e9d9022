"""Train variants over several seeds and compare them: python scripts/ablation.py FILE --output_dir DIR

FILE is YAML, such as configs/ablations/cifar10.yaml:

    config: configs/classification/cifar10.yaml   # base of all runs, in the project or beside FILE
    seeds: [1, 2, 3]
    settings: {train.epochs: 8}                   # of all rows
    rows:                                         # the first is the reference of the others
      - name: V2 1.0x
      - name: V1 1.0x
        settings: {network.name: ghostnet_1x}

Each row and seed is a run of train.py. Started again, the same command goes on where it was stopped.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Tuple

from tqdm import tqdm

SCRIPTS = Path(__file__).resolve().parent
PROJECT = SCRIPTS.parent
sys.path[:0] = [str(PROJECT), str(SCRIPTS)]

from ablation_tables import Row, Trial, collect, conclude, describe, read_made, show_table, write_results

from src.command_line import add_overrides
from src.config import load_config, parse_override, read_text, read_yaml
from src.console import Parser, run
from src.errors import UserError, suggestion
from src.fields import check
from src.files import make_folder
from src.layers.complexity import count_multiply_adds, count_parameters
from src.ranks import Ranks
from src.runtime import init_runtime
from src.settings import with_class_names
from src.tasks import SCHEMAS, create_task
from src.training.progress import StopSignals
from src.training.run_folder import AUTO, RunFolder
from src.training.schedule import build_schedule
from src.yaml_tree import to_plain

TRAIN = PROJECT / "train.py"
KEYS = ("config", "seeds", "settings", "rows")
POLL_INTERVAL = 0.2  # seconds


def parse_arguments():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("file", metavar="FILE", help="base configuration, seeds and rows (YAML)")
    parser.add_argument("--data_url", metavar="DIR", help="dataset folder")
    parser.add_argument("--output_dir", required=True, type=Path, metavar="DIR", help="folder for runs and results")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="train these only; default: all")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, which share the cores")
    parser.add_argument("--metric", choices=["last", "best"], default="last", help="epoch whose value counts")
    parser.add_argument("--report", action="store_true", help="train nothing, make the table of what is there")
    add_overrides(parser)
    arguments = parser.parse_intermixed_args()
    cores = len(available_cores())
    if not 1 <= arguments.jobs <= cores:
        raise UserError(f"--jobs {arguments.jobs} is out of range: at least 1 and at most {cores}, the cores")
    if arguments.report and not arguments.output_dir.is_dir():
        raise UserError(f"{arguments.output_dir}: no such folder to report on")
    return arguments


def read_ablation(path: Path):
    """Read the file: (base configuration, seeds, all `Row`s), whose settings are not checked yet.

    Raises:
        UserError: if it is missing, no valid YAML, or has other keys, or values of another kind.
    """
    content = read_yaml(path, read_text(path)).content
    for key, value in content.items():
        check_key(key, KEYS, value.source)
    for key in ("config", "seeds", "rows"):
        if key not in content:
            raise UserError(f"{path}: {key}: is missing")
    config = checked(content["config"], "config", str)
    seeds = checked(content["seeds"], "seeds", Tuple[int, ...])
    if len(set(seeds)) < max(1, len(seeds)):
        raise UserError(f"{content['seeds'].source}: seeds: {list(seeds)} are none, or one of them is given twice")
    common = read_settings(to_plain(content["settings"]), content["settings"].source) if "settings" in content else ()
    beside = path.parent / config
    return beside if beside.is_file() else PROJECT / config, seeds, read_rows(content["rows"], common)


def checked(value, key, hint):
    """Check the value of a key, see `src.fields.check`."""
    try:
        return check(to_plain(value), hint)
    except UserError as error:
        raise UserError(f"{value.source}: {key}: {error}") from None


def check_key(key, allowed, source) -> None:
    """Raise `UserError` unless a key is among those that are allowed."""
    if key not in allowed:
        others = suggestion(key, allowed) or f"; allowed: {', '.join(allowed)}"
        raise UserError(f"{source}: unknown key {key!r}{others}")


def read_settings(content, source) -> tuple:
    """Read a mapping of settings as (dotted key, value, source) each."""
    if not isinstance(content, dict):
        raise UserError(f"{source}: settings: {content!r} is not a mapping of section.key to value")
    return tuple((key, value, source) for key, value in content.items())


def read_rows(value, common) -> list:
    """Read the list of rows; `common` settings stand before their own."""
    if not isinstance(value.content, list) or not value.content:
        raise UserError(f"{value.source}: rows: is not a list of rows")
    rows = {}
    for number, item in enumerate(value.content, 1):
        place = f"{value.source}: row {number}"
        if not isinstance(item, dict):
            raise UserError(f"{place}: {item!r} is not a mapping of name and settings")
        for key in item:
            check_key(key, ("name", "settings"), place)
        name = item.get("name")
        if not isinstance(name, str) or not name.isprintable() or not Row(name, ()).slug:
            raise UserError(f"{place}: name: {name!r} is not a text with a letter or digit")
        row = Row(name, (*common, *read_settings(item.get("settings", {}), f"{place}, {name!r}")))
        if row.slug in rows:
            raise UserError(f"{place}: name: {name!r} makes the folder {row.slug}-seedN, as {rows[row.slug].name!r}")
        rows[row.slug] = row
    return list(rows.values())


def choose_rows(rows, arguments) -> list:
    """Choose the rows to train; settings behind the names are moved to where they belong."""
    names = arguments.rows or [row.name for row in rows]
    known = {row.name: row for row in rows}
    arguments.overrides += [name for name in names if name not in known and "=" in name]
    names = [name for name in names if name in known or "=" not in name]
    for name in names:
        if name not in known:
            raise UserError(f"--rows: {name!r} is not one of {', '.join(known)}{suggestion(name, known)}")
    return [known[name] for name in dict.fromkeys(names)]


def build_trials(base, seeds, rows, arguments) -> list:
    """Build the runs of rows, seeds outermost: wherever it is stopped, all rows have had about as many seeds.

    Raises:
        UserError: if settings are wrong, the same in two rows, or of different metrics.
    """
    added = [("data.path", arguments.data_url, "--data_url")] if arguments.data_url else []
    added += [parse_override(item) for item in arguments.overrides]
    trials = []
    for seed in seeds:
        for row in rows:
            overrides = (*row.overrides, *added, ("runtime.seed", seed, f"{arguments.file}: seeds"))
            config = load_config(base, SCHEMAS, overrides)
            equal = [trial.row.name for trial in trials if trial.config == config]
            if equal:
                raise UserError(f"{arguments.file}: the rows {equal[0]!r} and {row.name!r} have the same settings")
            folder = RunFolder(arguments.output_dir / f"{row.slug}-seed{seed}")
            trials.append(Trial(row, seed, config, overrides, folder))
            if trials[-1].metric != trials[0].metric:
                names = f"{trials[0].row.name!r} and {row.name!r}"
                raise UserError(f"{arguments.file}: the rows {names} cannot be compared: train.best_metric differs")
    return trials


def check_data(config) -> None:
    """Raise `UserError` if the data are not there, do not fit the settings, or are too few for the schedule."""
    data = create_task(config).build_dataset("train", Ranks())
    create_task(with_class_names(config, data.class_names)).build_dataset("val", Ranks())
    updates = data.batches // config.train.accumulation_steps
    build_schedule(config.schedule, config.train.epochs, updates, config.runtime.seed)


def measure(config):
    """Build a network and count its parameters and multiply-adds."""
    task = create_task(config)
    network = task.build_network()
    return count_parameters(network), count_multiply_adds(network, task.export_signature().input_shape[1:])


def command(base, trial) -> list:
    """Give the command line of a run."""
    settings = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value, _ in trial.overrides]
    fixed = ["--config", str(base), "--output_dir", str(trial.folder.path), "--resume", AUTO]
    return [sys.executable, str(TRAIN), *fixed, *settings]


def train_all(base, trials, jobs) -> dict:
    """Train, some at a time, what is not whole yet: {(row, seed): reason} of the runs that failed.

    Raises:
        KeyboardInterrupt: after Ctrl-C, when all that was running has saved its state.
    """
    waiting, running, failures, cores = list(trials), {}, {}, available_cores()
    size = len(cores) // jobs
    shares = [cores[number * size :][:size] for number in range(jobs)]
    with StopSignals(Ranks()) as signals, tqdm(total=len(trials), unit="run", disable=None) as bar:
        try:
            while (waiting or running) and not signals.requested:
                while waiting and shares:
                    trial, share = waiting.pop(0), shares.pop(0)
                    running[start(command(base, trial), trial.log, share)] = trial, share
                time.sleep(POLL_INTERVAL)
                for process in [process for process in running if process.poll() is not None]:
                    trial, share = running.pop(process)
                    shares.append(share)
                    if process.returncode:
                        failures[trial.row.name, trial.seed] = f"{trial.log}: {last_line(trial.log)}"
                    bar.update()
        finally:
            stop(running)
    if signals.requested:
        raise KeyboardInterrupt
    return failures


def available_cores() -> list:
    """List the processor cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))


@contextmanager
def on_cores(cores):
    """Let processes that are started in the block use some cores alone, on Linux."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(line, log, cores):
    """Start a run on some cores, as a process of its own session, so that Ctrl-C reaches it through `stop` alone."""
    with open(log, "a", encoding="utf-8") as file, on_cores(cores):
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)


def stop(processes) -> None:
    """Let runs save their states and end; if that is interrupted, too, end them at once."""
    try:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def last_line(log) -> str:
    """Give the last line of a run's log, the reason where it failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "ended without a word")


def main():
    arguments = parse_arguments()
    base, seeds, rows = read_ablation(Path(arguments.file))
    chosen = choose_rows(rows, arguments)
    shown = [row for row in rows if row in chosen or row is rows[0]]
    trials = build_trials(base, seeds, shown, arguments)
    for trial in trials:
        read_made(trial, arguments.report)
    init_runtime("CPU", seeds[0], graph_mode=False)  # a device is left to the runs
    sizes = {trial.row.name: measure(trial.config) for trial in trials[: len(shown)]}
    failures = {}
    if not arguments.report:
        todo = [trial for trial in trials if trial.row in chosen and not trial.is_whole(trial.read_epochs())]
        for trial in {trial.row.name: trial for trial in todo}.values():
            check_data(trial.config)
        make_folder(arguments.output_dir)
        failures = train_all(base, todo, arguments.jobs)
    entries = collect(trials, sizes, failures, arguments.metric)
    lines = [describe(trials, arguments.metric), conclude(entries), "", *show_table(entries, trials[0].metric[1])]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    write_results(arguments.output_dir, text, entries)
    if failures:
        raise UserError(f"{len(failures)} of the runs failed: {'; '.join(failures.values())}")


if __name__ == "__main__":
    run(main)
