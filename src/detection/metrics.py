"""COCO's average precision and recall by pycocotools, over every image exactly once, on all processes together."""

import contextlib
import io
import json

import numpy as np

from src.detection.postprocess import MAX_DETECTIONS
from src.errors import UserError
from src.files import write_csv, write_text

# pycocotools' 12 numbers, in its order
METRICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
ALL_AREAS, AT_100 = 0, -1  # places in pycocotools' tables: of the area ranges, of the limits on detections


class DetectionMetrics:
    """The detections of each image; each process fills in its own, `gather` brings them together.

    Args:
        annotations: `Annotations` of the images.

    Attributes:
        boxes: float (images, MAX_DETECTIONS, 4), xyxy in the image's pixels.
        scores: float (images, MAX_DETECTIONS).
        labels: int (images, MAX_DETECTIONS).
        counts: int (images,), how many of these places are taken.
    """

    def __init__(self, annotations):
        self.annotations = annotations
        images = len(annotations.images)
        self.boxes = np.zeros((images, MAX_DETECTIONS, 4))
        self.scores = np.zeros((images, MAX_DETECTIONS))
        self.labels = np.zeros((images, MAX_DETECTIONS), np.int64)
        self.counts = np.zeros(images, np.int64)
        self.seen = np.zeros(images, np.int64)

    def update(self, index, boxes, scores, labels):
        """Record the detections of the image `index`: (D, 4), (D,), (D,), best first, `MAX_DETECTIONS` at most."""
        count = len(scores)
        self.boxes[index, :count], self.scores[index, :count], self.labels[index, :count] = boxes, scores, labels
        self.counts[index] = count
        self.seen[index] += 1

    def gather(self, ranks):
        """Sum the records of all processes of `Ranks`, each of which holds zeros for the others' images."""
        for name in ("boxes", "scores", "labels", "counts", "seen"):
            setattr(self, name, ranks.sum(getattr(self, name)))
        if not (self.seen == 1).all():
            raise RuntimeError(f"{int((self.seen != 1).sum())} images were not evaluated exactly once")

    def results(self) -> list:
        """Give all detections in COCO's results format."""
        results = []
        for index, image in enumerate(self.annotations.images):
            for place in range(self.counts[index]):
                left, top, right, bottom = self.boxes[index, place].tolist()
                results.append(
                    {
                        "image_id": image.id,
                        "category_id": self.annotations.category_ids[self.labels[index, place]],
                        "bbox": [left, top, right - left, bottom - top],
                        "score": float(self.scores[index, place]),
                    }
                )
        return results

    def result(self):
        """Compute COCO's metrics.

        Returns:
            ({metric: number}, [(class name, objects, AP, AP50), ...]); -1, as in COCO, where no object is to be found.
        """
        evaluation = evaluate_results(self.annotations, self.results())
        metrics = {name: float(value) for name, value in zip(METRICS, evaluation.stats)}
        metrics["images"] = len(self.annotations.images)
        precision = evaluation.eval["precision"][:, :, :, ALL_AREAS, AT_100]  # (IoUs, recalls, classes)
        labels = np.concatenate([image.labels[~image.is_crowd] for image in self.annotations.images])
        counts = np.bincount(labels, minlength=len(self.annotations.class_names))
        rows = [
            (name, int(counts[index]), _mean(precision[:, :, index]), _mean(precision[0, :, index]))
            for index, name in enumerate(self.annotations.class_names)
        ]
        return metrics, rows

    def write_reports(self, folder, rows):
        """Write `detections.json`, in COCO's results format, and `per_class.csv` into `folder`, a pathlib.Path."""
        write_text(folder / "detections.json", json.dumps(self.results()))
        write_csv(folder / "per_class.csv", [("class", "objects", "AP", "AP50"), *rows])


def _mean(precision):
    """Average the entries that pycocotools has filled in; -1 if there are none."""
    filled = precision[precision > -1]
    return float(filled.mean()) if filled.size else -1.0


def evaluate_results(annotations, results):
    """Run pycocotools' `COCOeval` of results against `Annotations`, and summarise it.

    Raises:
        UserError: if pycocotools is missing.
    """
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UserError("evaluation of detection needs the package pycocotools: pip install pycocotools") from None
    boxes = [
        {**result, "id": number, "iscrowd": 0, "area": result["bbox"][2] * result["bbox"][3]}
        for number, result in enumerate(results, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(_index(annotations, _ground_truth(annotations)), _index(annotations, boxes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _index(annotations, boxes):
    """Build pycocotools' `COCO` object of the images with these boxes."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.id} for image in annotations.images],
        "categories": [{"id": number} for number in annotations.category_ids],
        "annotations": boxes,
    }
    coco.createIndex()
    return coco


def _ground_truth(annotations) -> list:
    """List the annotations as pycocotools wants them, numbered from 1: it takes the id 0 for "not found"."""
    entries = []
    for image in annotations.images:
        for box, label, area, is_crowd in zip(image.boxes, image.labels, image.areas, image.is_crowd):
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": image.id,
                    "category_id": annotations.category_ids[label],
                    "bbox": box.tolist(),
                    "area": float(area),
                    "iscrowd": int(is_crowd),
                }
            )
    return entries
