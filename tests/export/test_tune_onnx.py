"""The search for ONNX structures: made-up times lead to the best table, noise to no change, real graphs are timed."""

import runpy

import numpy as np
import pytest
from helpers import call_here, reference
from scipy.stats import norm, wilcoxon

from scripts import tune_onnx
from src.architecture import BLOCKS
from src.errors import UserError
from src.export.onnx_structures import STRUCTURES

SCRIPT = "scripts/tune_onnx.py"
RUNS = ([0], [1, 2], [3, 4], [5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15])  # that agree in the second Ghost module


class MadeUpRace:
    """Times that are a product of factors, one for each kind at each place, with noise.

    Args:
        spread: of the factors' logarithms.
        noise: standard deviation.
    """

    def __init__(self, spread, noise):
        generator = np.random.default_rng(1)
        self.costs = [[dict(zip(tune_onnx.KINDS, generator.normal(0, spread, 3))) for _ in "12"] for _ in BLOCKS]
        self.noise, self.generator, self.comparisons = noise, generator, 0

    def cost(self, table):
        return sum(cost[kind] for costs, row in zip(self.costs, table) for cost, kind in zip(costs, row))

    def allows(self, table):
        seconds = [{table[index][1] for index in run} for run in RUNS]
        assert all(len(kinds) == 1 for kinds in seconds), "blocks of a run disagree"
        return not {"split"} & set.union(*seconds)

    def compare(self, candidate, table, rounds):
        self.comparisons += 1
        return self.cost(candidate) - self.cost(table) + self.generator.normal(0, self.noise, rounds)

    def best(self):
        firsts = [min(costs[0], key=costs[0].get) for costs in self.costs]
        seconds = {}
        for run in RUNS:
            kind = min(("joined", "doubled"), key=lambda name: sum(self.costs[index][1][name] for index in run))
            seconds.update(dict.fromkeys(run, kind))
        return tuple((first, seconds[index]) for index, first in enumerate(firsts))


@pytest.fixture
def made_up(monkeypatch):
    """A race with large differences, in place of the real one."""
    for module in ("onnx", "onnxruntime"):  # the command looks for them
        reference(module)
    race = MadeUpRace(0.2, 0.002)
    monkeypatch.setattr(tune_onnx, "Race", lambda *options: race)
    return race


def test_search_finds_the_best_table():
    race = MadeUpRace(0.2, 0.002)
    assert race.best() != STRUCTURES
    assert tune_onnx.search(STRUCTURES, race, 20, 3) == race.best()


def test_noise_alone_changes_nothing():
    race = MadeUpRace(0, 0.05)
    assert tune_onnx.search(STRUCTURES, race, 20, 5) == STRUCTURES
    assert race.comparisons < 75  # a single pass: two candidates a block, one a run, each compared once to three times


def test_beyond_doubt_is_the_signed_rank_test():
    generator, found = np.random.default_rng(0), []
    for _ in range(300):
        values = generator.normal(generator.uniform(-1.2, 0.3), 1, generator.integers(tune_onnx.MIN_ROUNDS, 40))
        result = wilcoxon(values, alternative="less", correction=False, method="approx")
        found.append(bool(tune_onnx.is_faster(values)))
        assert found[-1] == (result.pvalue <= norm.sf(tune_onnx.DOUBT))
        middle, low, high = tune_onnx.interval(values)
        assert low <= middle <= high
        assert low == -tune_onnx.interval(-values)[2]
    assert 30 < sum(found) < 270


def test_pairs_of_calls_alternate(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(tune_onnx.time, "perf_counter", lambda: clock[0])

    def call(name, seconds):
        order.append(name)
        clock[0] += seconds

    ratio = tune_onnx.time_pair(lambda: call("a", 3.0), lambda: call("b", 2.0), 3, 1)
    assert ratio == pytest.approx(np.log(1.5))
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_the_written_module_is_the_table(made_up, tmp_path, monkeypatch):
    reference("onnxruntime")  # which the script asks for before it does anything
    monkeypatch.setattr(tune_onnx, "TABLE_FILE", tmp_path / "table.py")
    (tmp_path / "table.py").write_text("old")
    assert call_here(SCRIPT, "--output", "found.py", cwd=tmp_path).returncode == 0
    assert (tmp_path / "table.py").read_text() == "old"
    result = call_here(SCRIPT, "--write", "--batch_sizes", 1, 4, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for name in ("table.py", "found.py"):
        assert runpy.run_path(str(tmp_path / name))["STRUCTURES"] == made_up.best()
    text = (tmp_path / "table.py").read_text()
    assert text in result.stdout and "--batch_sizes 1 4 --threads 2" in text
    assert max(map(len, text.splitlines())) <= 120
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.py", "table.py"]
    speed = np.exp(made_up.cost(STRUCTURES) - made_up.cost(made_up.best()))
    assert float(result.stdout.splitlines()[-1].split()[0]) == pytest.approx(speed, rel=0.01)


def test_nothing_is_written_without_a_gain(made_up, tmp_path, monkeypatch):
    reference("onnxruntime")
    monkeypatch.setattr(tune_onnx, "TABLE_FILE", tmp_path / "table.py")
    monkeypatch.setattr(tune_onnx, "Race", lambda *options: MadeUpRace(0, 0.05))
    result = call_here(SCRIPT, "--write", cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "table.py stays: no table is faster beyond doubt"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "resnet"], "invalid choice: 'resnet'"),
        (["--rounds", "14"], "--rounds 14 is out of range: at least 15"),
        (["--batch_sizes", "1", "0"], "--batch_sizes 0 is out of range: at least 1"),
        (["--image_size", "32"], "--image_size 32 is out of range: at least 33"),
        (["--threads", "0"], "--threads 0 is out of range"),
        (["--output", "there.py"], "--output there.py: exists"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    (tmp_path / "there.py").touch()
    result = call_here(SCRIPT, *arguments, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_without_onnxruntime(tmp_path, monkeypatch):
    reference("onnx")
    monkeypatch.setitem(tune_onnx.sys.modules, "onnxruntime", None)
    result = call_here(SCRIPT, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, "error: needs onnxruntime: pip install onnxruntime\n")


def test_different_outputs_are_an_error():
    expected = np.linspace(0, 10, 7)
    tune_onnx.check_outputs(expected + 9e-5, expected)
    for wrong in (expected + 2e-4, expected * np.nan):
        with pytest.raises(UserError, match="outputs of two tables differ"):
            tune_onnx.check_outputs(wrong, expected)


@pytest.fixture(scope="module")
def race():
    """A real race of small images."""
    for module in ("onnx", "onnxruntime"):
        reference(module)
    return tune_onnx.Race(["ghostnetv2_1x"], 33, [1, 2], 1)


def test_real_graphs_allow_what_they_should(race):
    from src.export import onnx_graph

    (stem, later) = [place for place in tune_onnx.list_places() if place[1] == 1][:2]
    assert race.allows(tune_onnx.replace(STRUCTURES, *later, "doubled"))
    assert not race.allows(tune_onnx.replace(STRUCTURES, *later, "split"))
    assert not race.allows(tune_onnx.replace(STRUCTURES, *stem, "joined"))
    assert not race.allows(tune_onnx.replace(STRUCTURES, [7], 1, "doubled"))
    assert onnx_graph.STRUCTURES is STRUCTURES


def test_real_graphs_are_compared(race):
    other = tuple(("joined" if first == "split" else "split", second) for first, second in STRUCTURES)
    values = race.compare(other, STRUCTURES, 4)
    assert values.shape == (4,) and np.isfinite(values).all() and values.std() > 0


def test_places_suit_every_width(race, monkeypatch):
    """At the smallest, all maps but the last have 4 channels, and no block without a stride has a shortcut."""
    from src.export.folding import fold_batch_norm
    from src.ghostnetv2 import create_network

    network = fold_batch_norm(create_network("ghostnetv2_1x", width=0.01))
    monkeypatch.setattr(race, "cases", [(network, 1)])
    race.models.cache_clear()
    table, other = STRUCTURES, STRUCTURES
    for run in RUNS[1::2]:
        table = tune_onnx.replace(table, run, 1, "doubled")
    for run in RUNS[2::2]:
        other = tune_onnx.replace(other, run, 1, "doubled")
    assert race.allows(table) and race.allows(other)
    race.models.cache_clear()
