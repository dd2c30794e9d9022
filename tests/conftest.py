"""What every test needs: the project and the helpers on the path, and graph mode."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
os.environ["XDG_CACHE_HOME"] = str(PROJECT / ".pytest_cache" / "graphs")  # of commands that tests run


@pytest.fixture(autouse=True)
def graph_mode():
    """Every test starts in graph mode; MindSpore's own default is PyNative."""
    import mindspore

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
