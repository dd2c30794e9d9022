"""The predictors of all tasks, and what they need as a text, which exported files carry. Needs no MindSpore."""

import dataclasses
import json

from src.classification.predictor import ClassificationOptions, ClassificationPredictor
from src.detection.predictor import DetectionOptions, DetectionPredictor
from src.errors import UserError
from src.fields import check_fields
from src.segmentation.predictor import SegmentationOptions, SegmentationPredictor

PREDICTION = "prediction"  # in a file's notes: the task and its predictor's options, as JSON
PREDICTORS = {
    "classification": (ClassificationOptions, ClassificationPredictor),
    "detection": (DetectionOptions, DetectionPredictor),
    "segmentation": (SegmentationOptions, SegmentationPredictor),
}


def dump_options(task: str, options) -> str:
    """Put the name of a task and its predictor's options into a text."""
    return json.dumps({"task": task, **dataclasses.asdict(options)})


def build_predictor(network, notes, path, changes):
    """Build the predictor that an exported file describes.

    Args:
        network: `FileNetwork`.
        notes: of the file, {name: text}.
        path: of the file, for messages.
        changes: {option: value} to replace.

    Raises:
        UserError: if the file has no such note, or one that makes no sense.
    """
    if PREDICTION not in notes:
        raise UserError(f"{path}: does not say how to prepare images; export.py writes files that do")
    try:
        content = json.loads(notes[PREDICTION])
        options_class, predictor_class = PREDICTORS[content.pop("task")]
        options = options_class(**{**content, **changes})
        check_fields(options)
    except (UserError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, UserError) else type(error).__name__
        raise UserError(f"{path}: its note on the preparation of images is damaged: {reason}") from None
    return predictor_class(network, options)
