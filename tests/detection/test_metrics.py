"""COCO's numbers: by hand where a hand can, through pycocotools' own files, and put together from processes."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from detection.coco_files import content, write_and_read

from src.detection.boxes import to_corners
from src.detection.metrics import METRICS, DetectionMetrics
from src.ranks import Ranks


def perfect(annotations):
    """Metrics that were given every object itself as a detection."""
    metrics = DetectionMetrics(annotations)
    for index, image in enumerate(annotations.images):
        real = ~image.is_crowd
        boxes, labels = to_corners(image.boxes)[real], image.labels[real]
        metrics.update(index, boxes, np.linspace(0.9, 0.6, len(labels)), labels)
    return metrics


def test_the_ground_truth_has_precision_one(tmp_path):
    """The annotation with the id 0 among it, which pycocotools alone would take for one that was not found."""
    metrics, rows = perfect(write_and_read(tmp_path, "val")).result()
    assert metrics["AP"] == metrics["AP50"] == metrics["AP75"] == metrics["AR_100"] == pytest.approx(1)
    assert metrics["AP_large"] == -1  # no object is larger than 96x96
    assert metrics["images"] == 3
    assert list(metrics) == [*METRICS, "images"]
    assert [(name, count) for name, count, *_ in rows] == [("cat", 2), ("dog", 1)]
    assert np.allclose([values for *_, values in rows], 1)


def test_by_hand(tmp_path):
    """Cats: one found, one missed, a false alarm between; dogs: the box is a bit off.

    The cats' precision is 1 up to a recall of 1/2, then 0: 51 of 101 points. The dog's IoU is 0.8, found at 7
    of the 10 thresholds from 0.5 to 0.95 (0.5 to 0.8).
    """
    metrics = DetectionMetrics(write_and_read(tmp_path, "val"))
    dog = (10, 5, 26, 35)  # 16 of 20 columns
    metrics.update(0, np.array([dog, (0, 0, 5, 5)]), np.array([0.9, 0.3]), np.array([1, 0]))
    metrics.update(1, np.array([(0, 0, 40, 50)]), np.array([0.8]), np.array([0]))
    metrics.update(2, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    result, rows = metrics.result()
    cat_ap, dog_ap = 51 / 101, 7 / 10
    assert [row[2] for row in rows] == pytest.approx([cat_ap, dog_ap])
    assert [row[3] for row in rows] == pytest.approx([cat_ap, 1])
    assert result["AP"] == pytest.approx((cat_ap + dog_ap) / 2)
    assert result["AP50"] == pytest.approx((cat_ap + 1) / 2)
    assert result["AP75"] == pytest.approx((cat_ap + 1) / 2)
    assert result["AR_100"] == pytest.approx((0.5 + 0.7) / 2)


def noisy(annotations, seed=0):
    """Metrics of shifted objects and false alarms."""
    rng, metrics = np.random.default_rng(seed), DetectionMetrics(annotations)
    for index, image in enumerate(annotations.images):
        boxes = np.concatenate((to_corners(image.boxes), rng.uniform(0, 20, (3, 4)) + (0, 0, 20, 20)))
        boxes += rng.uniform(-3, 3, boxes.shape)
        labels = np.concatenate((image.labels, rng.integers(0, 2, 3)))
        metrics.update(index, boxes, np.sort(rng.random(len(boxes)))[::-1], labels)
    return metrics


def test_files_are_those_of_coco(tmp_path, capsys):
    """pycocotools reads our results file and the annotation file itself, and finds the same numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    described = content()
    described["annotations"][0]["id"] = 1
    described["annotations"].append(
        {"id": 9, "image_id": 90, "category_id": 44, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 1}
    )
    metrics = noisy(write_and_read(tmp_path, "val", described))
    result, rows = metrics.result()
    assert capsys.readouterr().out == ""
    metrics.write_reports(tmp_path, rows)
    truth = COCO(tmp_path / "annotations" / "instances_val2017.json")
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "detections.json")), "bbox")
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    assert np.allclose(evaluation.stats, [result[name] for name in METRICS])
    assert 0.1 < result["AP"] < 0.9
    detections = json.loads((tmp_path / "detections.json").read_text())
    assert len(detections) == 3 + 1 + 9 and {entry["category_id"] for entry in detections} == {2, 44}
    table = list(csv.reader((tmp_path / "per_class.csv").open()))
    assert table[0] == ["class", "objects", "AP", "AP50"]
    assert np.mean([float(row[2]) for row in table[1:]]) == pytest.approx(result["AP"])


def test_processes_are_put_together(tmp_path):
    """Each holds zeros where the others have detections; an image seen twice or never is an error."""
    annotations = write_and_read(tmp_path, "val")
    whole = noisy(annotations)
    parts = [noisy(annotations) for _ in range(2)]
    arrays = ("boxes", "scores", "labels", "counts", "seen")
    for rank, part in enumerate(parts):
        for name in arrays:
            getattr(part, name)[1 - rank :: 2] = 0
    others = [getattr(parts[1], name) for name in arrays]
    parts[0].gather(SimpleNamespace(sum=lambda values: values + others.pop(0)))
    assert parts[0].results() == whole.results()
    with pytest.raises(RuntimeError, match="2 images were not evaluated exactly once"):
        parts[1].gather(Ranks())


@pytest.mark.parametrize("objects", [True, False])
def test_nothing_detected(tmp_path, objects):
    described = content() if objects else {**content(), "annotations": []}
    metrics = DetectionMetrics(write_and_read(tmp_path, "val", described))
    for index in range(3):
        metrics.update(index, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    result, rows = metrics.result()
    assert result["AP"] == (0 if objects else -1)
    assert metrics.results() == [] and [row[2] for row in rows] == [result["AP"]] * 2
