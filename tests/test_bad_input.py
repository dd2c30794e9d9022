"""Bad input of every kind ends in one line that says what is wrong and where: the tables are in `bad_input`."""

import shutil

import pytest
from bad_input import classification, commands, data, settings, weights
from bad_input.case import CLASSIFICATION, DETECTION, SEGMENTATION, WEIGHTS, write_good_inputs, write_good_weights
from helpers import call_here

TABLES = (classification.CASES, commands.CASES, settings.CASES, weights.CASES, data.CASES)
CASES = {name: case for table in TABLES for name, case in table.items()}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    write_good_inputs(folder)
    write_good_weights(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    """A folder of good inputs, for a test to spoil."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(WEIGHTS))
    (tmp_path / WEIGHTS).symlink_to(good / WEIGHTS)
    return tmp_path


def test_no_case_stands_in_two_tables():
    assert len(CASES) == sum(map(len, TABLES))


@pytest.mark.parametrize("name", CASES)
def test_bad_input_ends_in_one_line(name, folder):
    case = CASES[name]
    if case.prepare is not None:
        case.prepare(folder)
    result = call_here(case.script, *case.arguments, cwd=folder)
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr[-2000:]
    assert case.message in result.stderr
    assert result.returncode == 2


@pytest.mark.parametrize("config", [CLASSIFICATION, DETECTION, SEGMENTATION])
def test_the_good_inputs_are_good(folder, config):
    """Without this, a case could fail for a reason of its own."""
    from src.config import load_config
    from src.ranks import Ranks
    from src.tasks import SCHEMAS, create_task

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        task = create_task(load_config(config, SCHEMAS))
        for split in ("train", "val"):
            assert next(iter(task.build_dataset(split, Ranks()).pipeline().create_tuple_iterator(num_epochs=1)))
