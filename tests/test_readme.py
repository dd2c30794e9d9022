"""The README in Chinese says what the English one does: the same sections, commands, names, links and numbers."""

import re
from collections import Counter

import pytest
from helpers import PROJECT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAYOUT = "train.py  eval.py"  # the block whose descriptions are translated


def read(name):
    """(text outside of blocks of code, the blocks)."""
    text = (PROJECT / name).read_text(encoding="utf-8")
    return BLOCK.sub("", text), [block for _, block in BLOCK.findall(text)]


@pytest.fixture(scope="module")
def both():
    return read("README.md"), read("README_CN.md")


def test_sections_are_the_same(both):
    (english, _), (chinese, _) = both
    levels = [[len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in (english, chinese)]
    assert levels[0] == levels[1] and len(levels[0]) > 10
    sizes = [
        [len(re.findall(r"^\|", section, re.MULTILINE)) for section in re.split(r"^#+ ", text, flags=re.MULTILINE)]
        for text in (english, chinese)
    ]
    assert sizes[0] == sizes[1] and sum(sizes[0]) > 30  # rows of tables


def test_commands_and_outputs_are_the_same(both):
    (_, english), (_, chinese) = both
    assert len(english) == len(chinese) > 5
    for ours, theirs in zip(english, chinese):
        if ours.startswith(LAYOUT):
            names = [re.findall(r"[\w*]+(?:\.py|\.sh|/)|\w+\.yaml", block) for block in (ours, theirs)]
            assert names[0] == names[1] and len(names[0]) > 30
        else:
            assert ours == theirs


@pytest.mark.parametrize(
    "pattern",
    [r"`[^`]+`", r"\]\(([^)]+)\)", r"\d+(?:[.,x]\d+)*"],
    ids=["names", "links", "numbers"],
)
def test_text_has_the_same(both, pattern):
    (english, _), (chinese, _) = both
    english, chinese = english.replace("(README_CN.md)", ""), chinese.replace("(README.md)", "")
    assert Counter(re.findall(pattern, english)) == Counter(re.findall(pattern, chinese))
