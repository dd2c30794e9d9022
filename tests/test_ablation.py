"""The ablation: statistics and table from given figures, going on where it was stopped, mistakes, and a small run."""

import argparse
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import PROJECT, call, call_here, command
from PIL import Image

from scripts import ablation, ablation_tables
from scripts.make_demo_data import load_split_digits
from src.classification.settings import NetworkSettings
from src.detection.settings import DetectionConfig
from src.settings import TrainSettings

SCRIPT = "scripts/ablation.py"
BASE = PROJECT / "configs" / "classification" / "digits.yaml"
FILE = """
config: digits.yaml
seeds: [1, 2]
settings: {train.epochs: 2, network.name: ghostnet_1x}
rows:
  - {name: First one}
  - {name: Rate 0.1, settings: {schedule.learning_rate: 0.1}}
  - {name: No flip, settings: {augment.flip: 1.0}}
"""
# in place of train.py: notes its call and writes an epoch for each that is wanted, unless the file `orders` says else
STUB = """
import json, os, pathlib, signal, sys, time
folder, resume, tree = pathlib.Path(sys.argv[4]), sys.argv[6], {"base": os.path.abspath(sys.argv[2])}
for key, value in (item.split("=", 1) for item in sys.argv[7:]):
    section, leaf = key.split(".")
    tree.setdefault(section, {})[leaf] = json.loads(value)
print(folder.name, resume, *os.sched_getaffinity(0), file=open("calls", "a"))
order = json.loads(pathlib.Path("orders").read_text()).get(folder.name)
if order == "fail": sys.exit("error: it is broken\\n")
if order == "wait":
    received = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    pathlib.Path("waiting").touch()
    while not received: time.sleep(0.01)
    time.sleep(0.5)  # as a run that saves its state
    sys.exit(pathlib.Path("received").write_text(str(len(received))))
folder.mkdir(exist_ok=True)
(folder / "config.yaml").write_text(json.dumps(tree))
rows = [f"{number},{number / 10 + tree['runtime']['seed'] / 100}" for number in range(1, tree["train"]["epochs"] + 1)]
(folder / "metrics.csv").write_text("\\n".join(["epoch,top_1_accuracy", *rows[:order], ""]))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with `FILE`, its base, and the stub; nothing is ordered."""
    for name, text in {"digits.yaml": BASE.read_text(), "file.yaml": FILE, "stub.py": STUB, "orders": "{}"}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def stub(folder, monkeypatch):
    """A function that calls the script with the stub in place of train.py, networks and data not looked at."""
    monkeypatch.setattr(ablation, "TRAIN", folder / "stub.py")
    monkeypatch.setattr(ablation, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(ablation, "measure", lambda config: (3914318, 9.7e6))
    monkeypatch.setattr(ablation, "check_data", lambda config: None)

    def call_with(*arguments, orders=None):
        (folder / "orders").write_text(json.dumps(orders or {}))
        (folder / "calls").write_text("")
        return call_here(SCRIPT, "file.yaml", "--output_dir", "out", *arguments, cwd=folder)

    return call_with


def calls(folder):
    return [line.split()[0] for line in (folder / "calls").read_text().splitlines()]


def cells(folder):
    """{name of a row: its cells} of the table."""
    lines = [line.strip("|").split("|") for line in (folder / "out" / "results.md").read_text().splitlines()]
    return {line[0].strip(): [cell.strip() for cell in line[3:]] for line in lines if len(line) > 3}


def test_quantiles_are_those_of_printed_tables():
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 29: 2.045, 30: 2.042, 120: 1.980}
    assert list(map(ablation_tables.t_quantile, printed)) == pytest.approx(list(printed.values()), abs=5e-4)


def test_intervals_by_hand():
    reference = {1: 0.40, 2: 0.41, 3: 0.42, 9: 0.9}
    three = ablation_tables.compare({3: 0.72, 2: 0.61, 1: 0.50, 4: 0.0}, reference)  # differences 0.1, 0.2, 0.3
    margin = 4.3027 * 0.1 / math.sqrt(3)
    assert [three.difference, three.low, three.high] == pytest.approx([0.2, 0.2 - margin, 0.2 + margin], abs=1e-5)
    closer = ablation_tables.compare({1: 0.30, 2: 0.30, 3: 0.30}, reference)  # -0.10, -0.11, -0.12
    assert closer.excludes_zero and three.excludes_zero is False
    assert closer.high == pytest.approx(-0.11 + 4.3027 * 0.01 / math.sqrt(3), abs=1e-5)
    two = ablation_tables.compare({1: 0.5, 2: 0.61}, reference)
    assert (two.low, two.high) == pytest.approx((0.15 - 12.7062 * 0.05, 0.15 + 12.7062 * 0.05), abs=1e-5)
    one = ablation_tables.compare({1: 0.5}, reference)
    assert one.difference == pytest.approx(0.1) and one.low is one.high is one.excludes_zero is None
    assert ablation_tables.compare({7: 0.5}, reference) is None
    assert ablation_tables.compare(reference, reference) == ablation_tables.Comparison(0.0, 0.0, 0.0)


def outcomes_of(values, metric="AP", **train):
    """What a detector's run of these values of a metric, texts of a file, has come to: of the last and of the best."""
    config = DetectionConfig(train=TrainSettings(**{"epochs": 3, **train}))
    trial = ablation_tables.Trial(ablation_tables.Row("a", ()), 1, config, (), None)
    found = [ablation_tables.find_outcome(trial, [{metric: value} for value in values], c) for c in ("last", "best")]
    return [outcome.state or outcome.value for outcome in found]


def test_outcome_of_a_run():
    assert outcomes_of(["0.1", "0.3", "0.2"]) == [0.2, 0.3]
    assert outcomes_of(["0.1", "", "0.2"]) == [0.2, 0.2]  # not every epoch need have an evaluation
    assert outcomes_of(["0.1", "0.3", "nan"]) == ["not a number", 0.3]
    assert outcomes_of(["nan", "nan", "nan"]) == ["not a number"] * 2
    assert outcomes_of(["0.1", "0.3"]) == ["2 of 3 epochs"] * 2 and outcomes_of([]) == ["-"] * 2
    assert outcomes_of(["0.1", "0.3", "0.2"], "AP50", best_metric="AP50") == [0.2, 0.3]


def test_patience_ends_a_run():
    """As train.py does: two evaluations that are not better than an earlier one, an equal one or nan among them."""
    unfinished = ["4 of 9 epochs"] * 2
    patient = {"epochs": 9, "patience": 2}
    assert outcomes_of(["0.1", "0.3", "0.3", "0.2"], **patient) == [0.2, 0.3]
    assert outcomes_of(["0.3", "", "nan", "0.2"], **patient) == [0.2, 0.3]
    assert outcomes_of(["0.1", "0.3", "", "0.2"], **patient) == unfinished
    assert outcomes_of(["0.1", "0.3", "0.2", "0.4"], **patient) == unfinished
    assert outcomes_of(["0.4", "0.3", "0.2", "0.1"], epochs=9) == unfinished


RATE = {"schedule": {"learning_rate": 0.1}}
SEEDS = {"first-one-seed1": (0.5, {}), "first-one-seed2": (0.52, {}), "rate-0.1-seed1": (0.4, RATE)}


def write_runs(folder, values):
    """Write whole runs: {name of a folder: (last value, settings)}."""
    for name, (value, settings) in values.items():
        run = folder / "out" / name
        run.mkdir(parents=True)
        common = {"network": {"name": "ghostnet_1x"}, "train": {"epochs": 2}, "data": {"path": "elsewhere"}}
        tree = {"base": str(folder / "digits.yaml"), "runtime": {"seed": int(name[-1])}, **common, **settings}
        (run / "config.yaml").write_text(json.dumps(tree))
        (run / "metrics.csv").write_text(f"epoch,top_1_accuracy\n1,0.99\n2,{value}\n")


def test_report_of_given_runs(folder, stub):
    write_runs(folder, {**SEEDS, "rate-0.1-seed2": (0.421, RATE), "no-flip-seed2": (0.6, {"augment": {"flip": 1.0}})})
    result = stub("--report")
    assert result.stdout == (folder / "out" / "results.md").read_text() and calls(folder) == []
    assert result.stdout.startswith("top_1_accuracy in %, of the last of 2 epochs; data: elsewhere; seeds: 1, 2. ")
    assert result.stdout.splitlines()[1] == "The interval excludes zero for: Rate 0.1."
    assert cells(folder) == {
        "row": ["seed 1", "seed 2", "mean", "standard deviation", "difference", "95% interval", "excludes zero"],
        "---": ["---"] * 7,
        "First one": ["50.00", "52.00", "51.00", "1.41", "", "", ""],
        # differences -10 and -9.9, mean -9.95, margin 12.706 * 0.05
        "Rate 0.1": ["40.00", "42.10", "41.05", "1.48", "-9.95", "-10.59 to -9.31", "yes"],
        "No flip": ["-", "60.00", "60.00", "", "+8.00", "", ""],
    }
    rows = {row["row"]: row for row in csv.DictReader((folder / "out" / "results.csv").open())}
    assert float(rows["Rate 0.1"]["low"]) == pytest.approx(-0.0995 - 12.7062 * 0.0005, abs=1e-6)
    assert (rows["Rate 0.1"]["excludes_zero"], rows["First one"]["low"], rows["No flip"]["low"]) == ("True", "", "")
    assert "99.00" in stub("--report", "--metric", "best").stdout


def test_the_metric_and_its_direction_are_those_of_the_settings(folder, stub):
    """The run's own metric; of a loss the lowest is the best, and it is no percentage."""
    text = FILE.replace("epochs: 2", "epochs: 6, train.patience: 1, train.best_metric: loss")
    (folder / "file.yaml").write_text(text)
    train = {"train": {"epochs": 6, "patience": 1, "best_metric": "loss"}}
    write_runs(folder, {name: (0.5, {**settings, **train}) for name, (_, settings) in SEEDS.items()})
    for name, losses in zip(SEEDS, [(3, 2, 2.5), (4, 1, 1), (5, 4)]):
        lines = [f"{number},0.5,{loss}" for number, loss in enumerate(losses, 1)]
        path = folder / "out" / name / "metrics.csv"
        path.write_text("\n".join(["epoch,top_1_accuracy,loss", *lines, ""]))
    result = stub("--report")
    assert result.stdout.startswith("loss, the lower the better, of the last of at most 6 epochs; ")
    assert cells(folder)["First one"][:3] == ["2.50", "1.00", "1.75"]
    assert cells(folder)["Rate 0.1"][:2] == ["2 of 6 epochs", "-"]
    stub("--report", "--metric", "best")
    assert cells(folder)["First one"][:3] == ["2.00", "1.00", "1.50"]
    arguments = ("--data_url", "elsewhere", "--rows", "First one")
    assert stub(*arguments).returncode == 0 and calls(folder) == []  # both were ended by their patience


def test_rows_of_different_metrics_are_refused(folder, stub):
    (folder / "file.yaml").write_text(FILE.replace("augment.flip: 1.0", "train.best_metric: loss"))
    message = "file.yaml: the rows 'First one' and 'No flip' cannot be compared: train.best_metric differs\n"
    assert stub().stderr == f"error: {message}" and calls(folder) == []
    message = "train.best_metric: 'los' is not one of top_1_accuracy, top_5_accuracy, loss (did you mean 'loss'?)\n"
    assert stub("train.best_metric=los").stderr == f"error: {message}"


def test_it_says_when_nothing_is_separated(folder, stub):
    write_runs(folder, SEEDS)
    assert "not separate the rows: an interval needs two seeds in common with the first" in stub("--report").stdout
    write_runs(folder, {"rate-0.1-seed2": (0.9, RATE)})
    assert "\nThese data do not separate the rows: every interval contains zero.\n" in stub("--report").stdout


def test_all_rows_have_a_seed_before_the_next_one(folder, stub):
    result = stub("--data_url", "data")
    assert result.returncode == 0, result.stderr
    names = ["first-one", "rate-0.1", "no-flip"]
    assert calls(folder) == [f"{name}-seed{seed}" for seed in (1, 2) for name in names]
    assert (folder / "calls").read_text().startswith("first-one-seed1 auto ")
    made = json.loads((folder / "out" / "rate-0.1-seed2" / "config.yaml").read_text())
    expected = {"schedule": {"learning_rate": 0.1}, "runtime": {"seed": 2}, "data": {"path": "data"}}
    assert {key: made[key] for key in expected} == expected
    assert cells(folder)["First one"][:3] == ["21.00", "22.00", "21.50"]
    assert stub("--data_url", "data").returncode == 0 and calls(folder) == []


def test_it_goes_on_with_what_is_not_whole(folder, stub):
    result = stub(orders={"rate-0.1-seed1": 1, "no-flip-seed2": "fail"})
    message = "error: 1 of the runs failed: out/no-flip-seed2.log: error: it is broken\n"
    assert (result.returncode, result.stderr) == (2, message)
    assert cells(folder)["Rate 0.1"][0] == "1 of 2 epochs" and cells(folder)["No flip"][:2] == ["21.00", "failed"]
    assert stub().returncode == 0
    assert calls(folder) == ["rate-0.1-seed1", "no-flip-seed2"]
    assert cells(folder)["No flip"][:2] == ["21.00", "22.00"]


def test_some_rows_only_that_share_the_cores(folder, stub, monkeypatch):
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(ablation, "available_cores", lambda: [cores[0], cores[-1]])
    assert stub("--jobs", 2, "--rows", "No flip", "train.epochs=1", "train.batch_size=8").returncode == 0
    lines = sorted((folder / "calls").read_text().splitlines())
    assert lines == [f"no-flip-seed1 auto {cores[0]}", f"no-flip-seed2 auto {cores[-1]}"]
    made = json.loads((folder / "out" / "no-flip-seed1" / "config.yaml").read_text())
    assert made["train"] == {"epochs": 1, "batch_size": 8}
    assert list(cells(folder)) == ["row", "---", "First one", "No flip"]


def test_runs_of_other_settings_are_refused(folder, stub):
    assert stub().returncode == 0
    for argument, message in {
        "train.batch_size=8": "--resume goes on with the settings of the run: train.batch_size was 32, is 8",
        "train.epochs=3": "train.epochs: 2 -> 3",
        "--data_url=b": "data.path: 'data/digits' -> 'b'",
    }.items():
        result, place = stub(argument), "out/first-one-seed1: is a run with other settings"
        assert result.stderr == f"error: {place}: {message}; --output_dir names a new folder\n"
        assert result.returncode == 2 and calls(folder) == []
    assert stub("train.log_every=7", "data.workers=1").returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("settings: {schedule", "setings: {schedule", "row 2: unknown key 'setings' (did you mean 'settings'?)"),
        ("seeds: [1, 2]", "sedes: [1, 2]", "file.yaml:3: unknown key 'sedes' (did you mean 'seeds'?)"),
        ("seeds: [1, 2]", "", "file.yaml: seeds: is missing"),
        ("seeds: [1, 2]", "seeds: []", "file.yaml:3: seeds: [] are none"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "or one of them is given twice"),
        ("No flip", "rate 0.1", "row 3: name: 'rate 0.1' makes the folder rate-0.1-seedN, as 'Rate 0.1'"),
        ("augment.flip", "augment.flp", "row 3, 'No flip': unknown key 'augment.flp' (did you mean 'flip'?)"),
        ("augment.flip: 1.0", "augment.flip: 2", "row 3, 'No flip': augment.flip: 2.0 is out of range"),
        ("augment.flip: 1.0", "augment.flip: 0.0", "the rows 'First one' and 'No flip' have the same settings"),
        ("train.epochs: 2", "train.epoch: 2", "file.yaml:4: unknown key 'train.epoch' (did you mean 'epochs'?)"),
        ("{name: First one}", "First one", "row 1: 'First one' is not a mapping of name and settings"),
        ("settings: {augment.flip: 1.0}", "settings: *a", "file.yaml:8: the alias *a is not allowed"),
        ("settings: {augment.flip: 1.0}", "name: b", "file.yaml:8: name: is given twice"),
    ],
)
def test_mistakes_in_the_file(folder, stub, old, new, message):
    (folder / "file.yaml").write_text(FILE.replace(old, new))
    result = stub()
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1
    assert result.returncode == 2 and calls(folder) == []


def test_mistakes_on_the_command_line(stub):
    for arguments, message in (
        (["--rows", "b"], "--rows: 'b' is not one of First one, Rate 0.1, No flip"),
        (["--jobs", "0"], "--jobs 0 is out of range: at least 1 and at most "),
        (["--report"], "out: no such folder to report on"),
    ):
        result = stub(*arguments)
        assert result.returncode == 2 and result.stderr.startswith(f"error: {message}")


def test_damaged_metrics_and_missing_data_are_named(folder):
    common = ("file.yaml", "--rows", "First one", "--output_dir")
    assert "error: data/digits: no such folder; " in call_here(SCRIPT, *common, "new", cwd=folder).stderr
    write_runs(folder, {"first-one-seed1": ("much", {})})
    message = "error: out/first-one-seed1/metrics.csv:3: is not epoch 2 with a number for top_1_accuracy\n"
    assert call_here(SCRIPT, *common, "out", "--report", cwd=folder).stderr == message


def interrupt_when(condition, line, folder):
    """Send Ctrl-C as soon as `condition` holds: one line, exit status 130."""
    process = subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, text=True)
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=300)[1] == "interrupted\n" and process.returncode == 130


def test_interrupted_it_lets_the_runs_end(folder):
    (folder / "orders").write_text('{"first-one-seed1": "wait"}')
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from scripts import ablation\n"
    code += "ablation.TRAIN, ablation.measure, ablation.check_data = 'stub.py', lambda config: (1, 1), print\n"
    line = [sys.executable, "-c", code + "ablation.run(ablation.main)", "file.yaml", "--output_dir", "out"]
    interrupt_when((folder / "waiting").exists, line, folder)
    assert (folder / "received").read_text() == "1" and calls(folder) == ["first-one-seed1"]


def test_the_projects_own_file():
    base, seeds, rows = ablation.read_ablation(PROJECT / "configs" / "ablations" / "cifar10.yaml")
    arguments = argparse.Namespace(file="", data_url=None, output_dir=PROJECT, overrides=[])
    trials = ablation.build_trials(base, seeds, rows, arguments)
    assert len(trials) == 18 and {trial.config.data.image_size for trial in trials} == {48}
    assert trials[0].config.network == NetworkSettings(num_classes=10, dropout=0.0)


@pytest.mark.slow
def test_small_run_that_is_stopped_and_goes_on(tmp_path):
    for number, (pixels, digit, is_val) in enumerate(list(zip(*load_split_digits()))[:60]):
        path = tmp_path / "data" / ("val" if is_val else "train") / str(digit) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    small = "data.image_size: 33, data.eval_resize: 33, train.batch_size: 4, train.epochs: 4, network.name: ghostnet_1x"
    rows = "rows: [{name: V1}, {name: No SE, settings: {network.name: ghostnetv2_nose_1x, network.dfc_blocks: []}}]"
    (tmp_path / "file.yaml").write_text(f"config: {BASE}\nseeds: [1]\nsettings: {{{small}}}\n{rows}\n")
    arguments = ("file.yaml", "--data_url", "data", "--output_dir", "out")
    interrupt_when((tmp_path / "out" / "v1-seed1" / "metrics.csv").exists, command(SCRIPT, *arguments), tmp_path)
    result = call(SCRIPT, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    log = (tmp_path / "out" / "v1-seed1.log").read_text()
    assert "interrupted; --resume out/v1-seed1 goes on from out/v1-seed1/last.ckpt" in log
    assert "resumed from out/v1-seed1/last.ckpt: epoch" in log
    assert "| V1 | 3,914,318 | 9.7 M | " in result.stdout and "| No SE | 2,410,450 | 8.2 M | " in result.stdout
    assert call(SCRIPT, *arguments, "--report", cwd=tmp_path).stdout == result.stdout
