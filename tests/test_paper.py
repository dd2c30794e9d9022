"""The paper's tables: their rows, ratios and files from given times, and one real table."""

import argparse
import csv
import json

import pytest
from helpers import call

from scripts import paper
from scripts.paper_tables import TABLES, V1, Row
from src.networks import choose_options

ROWS = [row for _, rows in TABLES.values() for row in rows]
SCRIPT = "scripts/paper.py"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name} {row.options}")
def test_rows_are_networks(row):
    choose_options(row.name, **row.options)
    assert (row.accuracy is None) == (row.source == "")


def test_no_two_rows_of_a_table_are_the_same_network():
    for name, (_, rows) in TABLES.items():
        options = [choose_options(row.name, **row.options) for row in rows]
        assert all(one not in options[:index] for index, one in enumerate(options)), name


def test_latency_is_the_median_and_its_ratio_that_of_each_round():
    result, reference = {"onnx": [2.0, 8.0, 3.0]}, {"onnx": [1.0, 2.0, 3.0]}
    assert paper.latency(result, reference, "onnx") == (3.0, 2.0)  # of 2, 4 and 1
    assert paper.latency(result, {}, "onnx") == (3.0, None)
    assert paper.latency({"onnx": {"failed": "why"}}, reference, "onnx") == (None, None)


@pytest.fixture
def results(monkeypatch):
    """What `measure` gives where no process is started: the second row takes twice as long, its LiteRT fails."""
    started = []

    def measured(kind, name, options):
        started.append((kind, name, options["name"]))
        if kind == "prepare":
            return {"parameters": 5_180_000, "multiply_adds": 141_200_000, "all_multiply_adds": 141_700_000}
        if options["name"] == V1.name:
            return {"seconds": [0.004, 0.005, 0.006]}
        return {"failed": "broken | pipe"} if name == "litert" else {"seconds": [0.010]}

    monkeypatch.setattr(paper, "call", measured)
    rows = [V1, Row("other", "ghostnetv2_1x"), Row("same network as the first", V1.name)]
    arguments = argparse.Namespace(image_size=224, runs=3, rounds=2)
    return rows, paper.measure(rows, arguments, ["onnx", "litert"], "folder"), started


def test_measurements_alternate_and_networks_are_measured_once(results):
    rows, measured, started = results
    assert started[:2] == [("prepare", "row", "ghostnet_1x"), ("prepare", "row", "ghostnetv2_1x")]
    turns = [("infer", name, network) for name in ("onnx", "litert") for network in ("ghostnet_1x", "ghostnetv2_1x")]
    assert started[2:] == turns * 2
    assert measured[paper.key_of(rows[0])]["onnx"] == [5.0, 5.0]


def test_table(results):
    rows, measured, _ = results
    heads, lines = paper.fill_table(rows, measured, ["onnx", "litert"])
    sizes = ["5.18", "141.2", "141.7"]
    assert lines[0] == [V1.label, *sizes, "5.00", "1.00", "5.00", "1.00", "73.98", V1.source]
    assert lines[1] == ["other", *sizes, "10.00", "2.00", "broken | pipe", "", "", ""]
    text = paper.as_markdown("Title", heads, lines)
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    assert list(csv.reader(paper.as_csv(heads, lines).splitlines())) == [heads, *lines]


def test_drawing(results, tmp_path):
    rows, measured, _ = results
    paper.draw(rows, measured, ["onnx"], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tables", "size"), "invalid choice: 'size'"),
        (("--rounds", "-1"), "--rounds -1 is out of range: at least 0"),
        (("--image_size", "32"), "--image_size 32 is out of range: at least 33"),
        (("--output_dir", "."), "--output_dir .: exists"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    result = call(SCRIPT, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_real_table(tmp_path):
    result = call(SCRIPT, "--tables", "place", "--rounds", "1", "--runs", "2", "--output_dir", "new", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "new" / "place.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["parameters, M"] for row in rows] == ["5.18", "6.16", "6.13", "7.11"]
    assert [row["multiply-adds, M"] for row in rows] == ["141.2", "167.0", "161.8", "187.7"]
    assert (tmp_path / "new" / "figure1.png").is_file() and json.dumps(rows)
