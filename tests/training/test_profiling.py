"""The table of slow operators, and that a run that is watched has the same weights as one that is not."""

import io
import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import PROJECT, call, reference, write_images
from PIL import Image

from src.errors import UserError
from src.ranks import Ranks
from src.training import profiling
from src.training.profiling import check_profile, format_operators, read_operators
from src.weights.mindspore_file import read_checkpoint

SETTINGS = ["data.image_size=33", "data.eval_resize=33", "train.batch_size=4", "data.workers=1", "train.epochs=1"]
WATCHED = ("train.profile=3", "train.summary=true")
# of an Ascend, as MindStudio's documentation describes it
STATISTIC = """Device_id,OP Type,Core Type,Count,Total Time(us),Min Time(us),Avg Time(us),Max Time(us),Ratio(%)
0,MatMulV2,AI_CORE,332,17945.3,1.28,54.052,329.68,8.212
0,Cast,AI_VECTOR_CORE,240,23077.4,1.18,96.155,2708.32,10.561
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs `plain` and `watched`, which trained a tiny network with the same settings."""
    reference("tensorboardX")
    root = tmp_path_factory.mktemp("watching")
    write_images(root / "data", {"train": {"a": 14, "b": 14}, "val": {"a": 2, "b": 2}})
    config = PROJECT / "configs" / "classification" / "digits.yaml"
    arguments = ("--config", config, "--data_url", "data", "--num_classes", 2)
    for name, extra in (("plain", ()), ("watched", WATCHED)):
        result = call("tests/training/tiny_train.py", *arguments, "--output_dir", name, *SETTINGS, *extra, cwd=root)
        assert result.returncode == 0, result.stderr
        (root / name / "output.txt").write_text(result.stdout + result.stderr)
    return root


@pytest.mark.long
def test_the_table_has_the_slowest_operators(folder):
    log = (folder / "watched" / "train.log").read_text().splitlines()
    start = next(index for index, line in enumerate(log) if line.startswith("profile of 3 batches in "))
    rows = [re.fullmatch(r"  (\w+) +(\d+) +([\d.]+) +([\d.]+)%", line) for line in log[start + 2 : start + 12]]
    rows = [(row[1], int(row[2]), float(row[3]), float(row[4])) for row in rows if row]
    assert 5 < len(rows) <= 10
    assert any(kind.startswith("Conv2D") for kind, *_ in rows)
    assert all(calls % 3 == 0 and milliseconds > 0 for _, calls, milliseconds, _ in rows)
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    assert 50 < sum(row[3] for row in rows) <= 100.5
    output = (folder / "watched" / "output.txt").read_text()
    assert log[start] in output and "profile" not in (folder / "plain" / "output.txt").read_text()
    assert list((folder / "watched" / "profile").rglob("*.csv"))


@pytest.mark.long
def test_watching_changes_no_weights(folder):
    (plain, _), (watched, _) = (read_checkpoint(folder / name / "last.ckpt") for name in ("plain", "watched"))
    assert plain.keys() == watched.keys() and len(plain) > 20
    assert all(np.array_equal(plain[name], watched[name]) for name in plain)


@pytest.mark.long
def test_the_summary_has_the_images_of_the_first_batch(folder):
    """In its augmentation: as `build_dataset` gives them, brought back to colours."""
    reference("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from src.config import load_config
    from src.ranks import Ranks
    from src.tasks import SCHEMAS, create_task

    config = load_config(folder / "watched" / "config.yaml", SCHEMAS, [("data.path", str(folder / "data"), "x")])
    batches = create_task(config).build_dataset("train", Ranks()).pipeline()
    first = next(batches.create_tuple_iterator(num_epochs=1, output_numpy=True))[0]
    expected = 255 * (first * np.reshape(config.data.std, (3, 1, 1)) + np.reshape(config.data.mean, (3, 1, 1)))
    (image,) = EventAccumulator(str(folder / "watched" / "summary")).Reload().Images("train_images")
    assert image.step == 0 and (image.width, image.height) == (4 * 33, 33)
    pixels = read_png(image.encoded_image_string)
    assert np.abs(pixels - np.concatenate(expected.transpose(0, 2, 3, 1), axis=1)).max() <= 0.51


def read_png(content):
    """The pixels (H, W, 3) of a file's content."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float64)


def test_a_table_of_an_ascend(tmp_path):
    (tmp_path / "ASCEND_PROFILER_OUTPUT").mkdir()
    (tmp_path / "ASCEND_PROFILER_OUTPUT" / "op_statistic.csv").write_text(STATISTIC)
    operators = read_operators(tmp_path, "Ascend")
    assert operators == [("Cast", 240, pytest.approx(23.0774)), ("MatMulV2", 332, pytest.approx(17.9453))]
    assert format_operators(operators, 2, 0.05, "run/profile") == [
        "profile of 2 batches in 50 ms: 2 types of operators, 41 ms; more in run/profile",
        "  operator    calls    total ms    share",
        "  Cast          240       23.08    56.3%",
        "  MatMulV2      332       17.95    43.7%",
    ]


def test_at_most_ten_rows_and_none_without_times(tmp_path):
    operators = [(f"Op{number}", 1, 100.0 - number) for number in range(25)]
    lines = format_operators(operators, 1, 1.0, tmp_path)
    assert len(lines) == 12 and lines[-1].split()[0] == "Op9"
    assert read_operators(tmp_path, "CPU") == []
    (line,) = format_operators([], 1, 1.0, tmp_path)
    assert line.startswith("profile: the profiler has left no times of operators in ")


def test_a_run_without_a_batch_to_profile_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(profiling, "feed_batches", lambda run: nullcontext(lambda: None))
    train, history = SimpleNamespace(profile=3), SimpleNamespace(batch=0, batches_per_epoch=9)
    run = SimpleNamespace(config=SimpleNamespace(train=train), ranks=Ranks(), history=history)
    lines = []
    with profiling.profile_batches(run, SimpleNamespace(path=tmp_path, tell=lines.append)) as train_on_next:
        train_on_next()
        train_on_next()
    assert lines == ["profile: none, the run has no batch behind the warm-up of 2"] and not list(tmp_path.iterdir())


def test_devices_without_times_are_refused():
    with pytest.raises(UserError, match="train.profile: GPU has no times of operators, only CPU and Ascend have"):
        check_profile(3, "GPU")
    check_profile(0, "GPU")
