"""Fixtures of the tests of training runs."""

import mindspore
import pytest
from training.tiny_run import TinyFolder


@pytest.fixture
def pynative():
    """Nothing to compile."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)


@pytest.fixture
def folder(tmp_path):
    return TinyFolder(tmp_path / "run")
