"""YAML files and settings."""

from bad_input.case import CLASSIFICATION, BadInput


def write(name, text):
    """Prepare a file with a text."""
    return lambda folder: (folder / name).write_text(text)


CASES = {
    "YAML: an impossible date": BadInput(
        "train.py", ("--config", "x.yaml"), "x.yaml:1: ", write("x.yaml", "data: {path: 2026-02-31}\n")
    ),
    "setting: infinite learning rate": BadInput(
        "train.py", ("--config", CLASSIFICATION, "schedule.learning_rate=.inf"), "schedule.learning_rate: inf is not"
    ),
}
