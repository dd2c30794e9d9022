"""What a network says of images, for people and for programs, whatever the task. Needs no MindSpore."""

import dataclasses
import json
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Tuple

import numpy as np

from src.errors import UserError, quote
from src.files import atomic_path, write_csv, write_text

AHEAD = 2  # images that each thread may be ahead of the network


@dataclass(frozen=True)
class PredictionOptions:
    """What a prediction depends on besides the network; a task adds to it. The fields are settings of these names."""

    class_names: Tuple[str, ...]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    exif_rotation: bool

    @classmethod
    def choose(cls, class_names, *sections):
        """Take each of the other fields from the first of the sections of settings that has it."""
        names = [item.name for item in dataclasses.fields(cls) if item.name != "class_names"]
        given = {name: getattr(next(part for part in sections if hasattr(part, name)), name) for name in names}
        return cls(class_names, **given)


@dataclass(frozen=True)
class Prediction:
    """What was found in an image.

    Attributes:
        path: of the image.
        findings: dicts of plain numbers and texts with the same keys, the most certain one first.
        lines: the same as text.
        drawing: PIL image, or None.
    """

    path: Any
    findings: list
    lines: Tuple[str, ...]
    drawing: Any = None


def predict_images(predictor, paths, output_dir=None, threads=1):
    """Yield a `Prediction` of each image, in order; threads decode the next ones meanwhile.

    Args:
        predictor: of a task: its `prepare` turns a path into whatever its `predict` takes.
        paths: image files.
        output_dir: folder for drawings, as PNG; None draws none.
        threads: number of these.

    Raises:
        UserError: if a file is missing or no whole image.
    """
    drawings, waiting, paths = DrawingFolder(output_dir), deque(), list(paths)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number, path in enumerate(paths):
                while len(waiting) < AHEAD * threads and number + len(waiting) < len(paths):
                    waiting.append(pool.submit(predictor.prepare, paths[number + len(waiting)]))
                result = predictor.predict(path, waiting.popleft().result(), draws=output_dir is not None)
                if result.drawing is not None:
                    drawn = drawings.save(result.drawing, path)
                    result = Prediction(path, result.findings, (*result.lines, drawn))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def tell_predictions(predictor, paths, results, output_dir, threads=1) -> None:
    """Print what is found in images, and write it to the files of `results`; see `predict_images` for the others."""
    predictions = predict_images(predictor, paths, output_dir, threads)
    for prediction in show_progress(predictions, len(paths)):
        print(*prediction.lines, sep="\n")
        results.add(prediction)
    results.write()


def add_result_flags(parser) -> None:
    """Add the flags that say where predictions go besides standard output."""
    parser.add_argument("--csv", metavar="FILE", help="table to write, a row for each finding; new file")
    parser.add_argument("--json", metavar="FILE", help="the same as JSON; new file")
    parser.add_argument("--output_dir", metavar="DIR", help="folder for drawings, for tasks that draw")


class DrawingFolder:
    """The folder of the drawings of one call of `predict_images`: each image of that call gets a name of its own.

    Args:
        path: of the folder; None where nothing is drawn.
    """

    def __init__(self, path):
        self.path, self.taken = path, set()

    def choose(self, source) -> Path:
        """Choose a PNG file for the drawing of the image file `source`."""
        stem = Path(source).stem
        path, number = Path(self.path) / f"{stem}.png", 1
        while path in self.taken:
            number += 1
            path = Path(self.path) / f"{stem}_{number}.png"
        self.taken.add(path)
        return path

    def save(self, drawing, source) -> str:
        """Save a PIL image under the name of the image file `source`; a line that says where."""
        path = self.choose(source)
        with atomic_path(path) as temporary:
            drawing.save(temporary)
        return f"  drawn: {quote(path)}"


class ResultFiles:
    """Predictions as files for programs; both are written when all images are done.

    The table has a row for each finding: image, and the finding's keys, a box as x1, y1, x2, y2. The content is
    a list of {"image": path, "predictions": findings}, images without any among them.

    Args:
        table, content: CSV file and JSON file to write; None for neither.

    Raises:
        UserError: if one of them exists.
    """

    def __init__(self, table, content):
        for path in filter(None, (table, content)):
            if os.path.exists(path):
                raise UserError(f"{path}: exists; a new file is needed for the results")
        self.table, self.content, self.predictions = table, content, []

    def add(self, prediction) -> None:
        """Take over what was found in an image."""
        if self.table or self.content:
            self.predictions.append((str(prediction.path), prediction.findings))

    def write(self) -> None:
        """Write the files."""
        if self.content:
            content = [{"image": path, "predictions": findings} for path, findings in self.predictions]
            write_text(self.content, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        if self.table:
            rows = [{"image": path, **flatten(finding)} for path, findings in self.predictions for finding in findings]
            header = list(rows[0]) if rows else ["image"]
            write_csv(self.table, [header, *(row.values() for row in rows)])


def flatten(finding) -> dict:
    """Spread the box of a finding over four columns."""
    finding = dict(finding)
    box = finding.pop("box", None)
    return finding if box is None else {**finding, **dict(zip(("x1", "y1", "x2", "y2"), box))}


def show_progress(predictions, count):
    """Pass predictions on and count them on a terminal's standard error, unless it shows their lines anyway."""
    is_shown = sys.stderr.isatty() and not sys.stdout.isatty()
    for number, prediction in enumerate(predictions, 1):
        if is_shown:
            print(f"\r{number} of {count} images", end="\n" * (number == count), file=sys.stderr, flush=True)
        yield prediction


def softmax(logits, axis):
    """Compute probabilities in the type of the logits."""
    powers = np.exp(logits - logits.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)
