"""The objects in an image. Needs no MindSpore."""

from dataclasses import dataclass
from typing import Tuple

from src.data.images import load_image, normalise
from src.detection.boxes import clip_boxes
from src.detection.drawing import draw_detections
from src.detection.postprocess import select_detections
from src.detection.transforms import whole_view
from src.drawing import label_classes, palette
from src.errors import UserError, quote
from src.inference.prediction import Prediction, PredictionOptions


@dataclass(frozen=True)
class DetectionOptions(PredictionOptions):
    """What a prediction depends on besides the network, see `src.detection.settings` and `DetectionLimits`."""

    mean_colour: Tuple[int, ...]
    image_size: int
    objectness: float
    score: float
    candidates: int
    iou: float
    detections: int
    drawn_score: float


class DetectionPredictor:
    """Image files -> the objects in them.

    Args:
        network: images float32 (N, 3, size, size) -> [boxes, objectness, class scores], as `yolov3.WithDecoding` gives.
        options: `DetectionOptions`.
    """

    def __init__(self, network, options):
        self.network, self.options = network, options

    def prepare(self, path):
        """Load an image: the PIL image, and float32 (1, 3, size, size)."""
        options = self.options
        image = load_image(path, exif_rotation=options.exif_rotation)
        pixels = whole_view(*image.size, options.image_size).read(image, options.mean_colour)
        return image, normalise(pixels[None], options.mean, options.std)

    def predict(self, path, prepared, draws):
        """Find the objects in what `prepare` gives: a `Prediction`, with corners in the image's pixels.

        Args:
            path: of the image.
            prepared: from `prepare`; the image is drawn on.
            draws: whether to draw the boxes.
        """
        image, batch = prepared
        boxes, scores, labels = self.select([output[0] for output in self.network(batch)], *image.size)
        shown, names = scores >= self.options.drawn_score, self.options.class_names
        boxes, scores, labels = boxes[shown], scores[shown], labels[shown]
        findings = [
            {"class": names[label], "index": int(label), "score": float(score), "box": [float(side) for side in box]}
            for box, score, label in zip(boxes, scores, labels)
        ]
        lines = [f"{quote(path)}: {len(findings)} detected"]
        for finding in findings:
            sides = " ".join(f"{side:.1f}" for side in finding["box"])
            lines.append(f"  {finding['score']:7.2%}  {finding['class']}  {sides}")
        if draws:
            drawn = label_classes(names)
            texts = [f"{drawn[finding['index']]} {finding['score']:.0%}" for finding in findings]
            draw_detections(image, boxes, texts, palette(len(names))[labels])
        return Prediction(path, findings, tuple(lines), image if draws else None)

    def select(self, predictions, width, height):
        """Select the detections of one image.

        Args:
            predictions: boxes (A, 4), objectness (A,) and class scores (A, classes), as `WithDecoding` gives them.
            width, height: of the image.

        Returns:
            boxes (D, 4), xyxy in the image's pixels and inside it, scores (D,), labels (D,).

        Raises:
            UserError: if the predictions are for another number of classes.
        """
        given, expected = predictions[-1].shape[-1], len(self.options.class_names)
        if given != expected:
            raise UserError(f"the network gives {given} classes, the settings say {expected}; --num_classes {given}")
        boxes, scores, labels = select_detections(*predictions, self.options)
        boxes = whole_view(width, height, self.options.image_size).to_image(boxes)
        return clip_boxes(boxes, (0, 0, width, height)), scores, labels
