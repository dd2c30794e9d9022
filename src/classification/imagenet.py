"""ImageNet-1k: its class index, and the labels of its validation images as they are downloaded."""

import csv
from functools import cache
from pathlib import Path

import numpy as np

from src.errors import UserError

CLASSES_FILE = Path(__file__).with_name("imagenet_classes.txt")
MAX_DIGITS = 9
DEVKIT_IDS = "meta.mat"  # beside ILSVRC2012_validation_ground_truth.txt in the development kit


@cache
def load_classes():
    """Read the 1000 WordNet ids in index order, which is their sorted order, and their English names."""
    lines = CLASSES_FILE.read_text(encoding="utf-8").splitlines()
    wnids, names = zip(*(line.split(" ", 1) for line in lines))
    return wnids, names


def read_labels(path, files, class_names):
    """Read the labels of the images `files`, in their order, from a list on disk.

    Args:
        path: one of
            - lines `FILE LABEL`, or a table with a header whose first columns are these (Kaggle's
              `LOC_val_solution.csv`); FILE with or without its ending; LABEL a class name or an index from 0;
            - lines `LABEL`, one an image in sorted order of the files; class names or indices from 0;
            - the development kit's `ILSVRC2012_validation_ground_truth.txt`, whose numbers 1 to 1000 are
              explained by the `meta.mat` beside it.
        files: paths of the images, sorted.
        class_names: in index order.

    Raises:
        UserError: for an image without a label, or a label that is no class.
    """
    path = Path(path)
    try:
        rows = [row for row in _read_rows(path) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    indices = {name: index for index, name in enumerate(class_names)}
    if all(len(row) == 1 for row in rows):
        labels = [row[0] for row in rows]
        if len(labels) != len(files):
            raise UserError(f"{path}: has {len(labels)} labels for {len(files)} images")
        ids = _read_devkit_ids(path.with_name(DEVKIT_IDS))
        if ids:
            labels = [ids.get(label, label) for label in labels]
        elif all(map(is_number, labels)) and "0" not in labels and str(len(indices)) in labels:
            raise UserError(
                f"{path}: numbers from 1 to {len(indices)} need the development kit's {DEVKIT_IDS} beside the file"
            )
    else:
        by_name = {Path(row[0]).stem: row[1] for row in rows if len(row) > 1}
        missing = [file for file in files if file.stem not in by_name]
        if missing:
            raise UserError(f"{path}: has no label for {missing[0].name} and {len(missing) - 1} other images")
        labels = [by_name[file.stem] for file in files]
    return np.array([_to_index(label, indices, path) for label in labels], np.int32)


def _read_rows(path):
    """Read rows of fields, split at commas or white space."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        # Kaggle's second column holds the class and boxes behind it
        return [[row[0], *row[1].split()[:1]] if len(row) > 1 else row for row in csv.reader(text.splitlines())]
    return [line.replace(",", " ").split() for line in text.splitlines()]


def is_number(label) -> bool:
    """Tell whether a label is an index: a few of the digits 0 to 9, not those of other scripts."""
    return label.isascii() and label.isdigit() and len(label) <= MAX_DIGITS


def _read_devkit_ids(path) -> dict:
    """Read {'1': wnid, ...} from the development kit's `meta.mat`; it is empty where there is none."""
    if not path.is_file():
        return {}
    from scipy.io import loadmat

    try:
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}
    except (ValueError, KeyError, TypeError, NotImplementedError):
        raise UserError(f"{path}: is not the development kit's list of synsets") from None


def _to_index(label, indices, path):
    if label in indices:
        return indices[label]
    if is_number(label) and int(label) < len(indices):
        return int(label)
    raise UserError(f"{path}: {label!r} is no class: neither a name nor an index from 0 to {len(indices) - 1}")
