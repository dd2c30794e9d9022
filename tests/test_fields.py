"""Fields of settings: each has bounds, and what is no number or text of a file is none here."""

import dataclasses
import math
from typing import Union, get_args, get_origin, get_type_hints

import pytest

from src import runtime
from src.architecture import NetworkOptions
from src.detection.settings import DataSettings, DetectionConfig
from src.errors import UserError
from src.fields import check
from src.runtime import check_memory, machine_memory
from src.settings import EvaluationSettings, TrainSettings
from src.tasks import SCHEMAS


def leaves(schema, prefix):
    """(name, type, metadata) of all fields of a dataclass and of those that it is made of."""
    hints = get_type_hints(schema)
    for item in dataclasses.fields(schema):
        hint, name = hints[item.name], f"{prefix}.{item.name}"
        if dataclasses.is_dataclass(hint):
            yield from leaves(hint, name)
        else:
            yield name, hint, item.metadata


def parts(hint):
    """A type and all that it is made of."""
    yield hint
    if get_origin(hint) in (tuple, Union):
        for argument in get_args(hint):
            yield from parts(argument)


ROOTS = {**SCHEMAS, "options": NetworkOptions}
FIELDS = [leaf for name, schema in ROOTS.items() for leaf in leaves(schema, name)]


@pytest.mark.parametrize(("name", "hint", "metadata"), FIELDS, ids=[name for name, *_ in FIELDS])
def test_every_number_has_bounds_and_every_list_a_length(name, hint, metadata):
    kinds = list(parts(hint))
    if int in kinds or float in kinds:
        assert math.isfinite(metadata["low"]) and math.isfinite(metadata["high"])
    if Ellipsis in kinds:
        assert metadata["length"] > 0


@pytest.mark.parametrize(
    ("content", "hint", "message"),
    [
        (math.inf, float, "inf is not a finite number"),
        ("-Infinity", float, "-inf is not a finite number"),
        ("nan", float, "nan is not a finite number"),
        (10**400, float, f"{10**400} is not a number"),
        ("", str, "is an empty text"),
        ("a\0", str, "'a\\x00' has a character that no file name can have"),
        ("\ud800", str, "'\\ud800' has a character that no file name can have"),
    ],
)
def test_what_is_no_value(content, hint, message):
    with pytest.raises(UserError) as error:
        check(content, hint)
    assert str(error.value) == message


def test_names_of_files_that_are_not_utf_8_are_texts():
    assert check("\udcff", str) == "\udcff"


def test_memory_is_that_of_the_system():
    with open("/proc/meminfo") as file:
        total = next(line for line in file if line.startswith("MemTotal:"))
    assert machine_memory() == pytest.approx(1024 * int(total.split()[1]), rel=0.01)


def test_an_array_must_fit_into_the_memory(monkeypatch):
    monkeypatch.setattr(runtime, "machine_memory", lambda: 4 * 6_000_000_000)
    check_memory("a.b", "numbers", 2, 3000, 1_000_000)
    with pytest.raises(UserError) as error:
        check_memory("a.b", "numbers", 2, 3001, 1_000_000)
    expected = "a.b: numbers of 2 x 3001 x 1000000 float32 take 24.0 GB, this machine has 24.0 GB of memory"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("image_size", "train", "evaluation", "gigabytes", "message"),
    [
        # 320 / 32, 320 / 16, 320 / 8 cells each way: 3 * (100 + 400 + 1600) = 6300 anchors
        (320, 24, 1, 0.05, "train.batch_size: predictions of 24 x 6300 x 85 "),  # 51.4 MB, more than 29.5 of images
        (320, 1, 24, 0.05, "evaluation.batch_size: predictions of 24 x 6300 x 85 "),
        (320, 24, 1, 0.06, "data.max_boxes: overlaps with anchors of 24 x 100 x 6300 "),  # 60.5 MB
        (320, 24, 1, 0.061, None),
        # 65 is not a multiple of any stride: 3 * (9 + 25 + 81) = 345 anchors
        (65, 24, 1, 0.0008, "train.batch_size: images of 24 x 3 x 65 x 65 "),  # 1.2 MB
        (65, 24, 1, 0.003, "data.max_boxes: overlaps with anchors of 24 x 100 x 345 "),  # 3.3 MB
    ],
)
def test_what_detection_needs(monkeypatch, image_size, train, evaluation, gigabytes, message):
    monkeypatch.setattr(runtime, "machine_memory", lambda: gigabytes * 1e9)
    sections = {
        "data": DataSettings(image_size=image_size),
        "train": TrainSettings(batch_size=train),
        "evaluation": EvaluationSettings(batch_size=evaluation),
    }
    if message is None:
        assert DetectionConfig(**sections)
        return
    with pytest.raises(UserError) as error:
        DetectionConfig(**sections)
    assert str(error.value).startswith(message)
