"""Evaluation of published kinds of checkpoints on real images, as a user runs it, against timm."""

import copy
import csv
import json
import shutil

import mindspore
import numpy as np
import pytest
from helpers import call, copy_weights, normal, random_timm, reference, shared_data
from mindspore import Tensor
from PIL import Image

from src.classification.imagenet import load_classes
from src.data.images import find_images, load_image
from src.networks import create_network


def evaluate(checkpoint, data, cwd, *settings):
    """Run eval.py without `--config`; its output, the result and the rows of the predictions."""
    arguments = ["--data_url", data, "--checkpoint_path", checkpoint]
    arguments += ["--output", "result.json", "--output_dir", "details", *settings]
    result = call("eval.py", *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((cwd / "details" / "predictions.csv").open()))
    return result.stdout, json.loads((cwd / "result.json").read_text()), rows


@pytest.fixture(scope="module")
def model():
    return random_timm("ghostnetv2_100")


def timm_transform():
    return reference("timm.data").create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875)


def spread_answers_(model):
    """Set the batch statistics to those of some images and centre the classifier, so that answers vary."""
    torch, transform = reference("torch"), timm_transform()
    paths, _ = find_images(shared_data("imagenet_samples") / "val")
    images = torch.stack([transform(load_image(path)) for path in paths[::5]])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
        features = model.eval().forward_head(model.forward_features(images), pre_logits=True)
        model.classifier.bias.copy_(model.classifier.bias - model.classifier(features).mean(0))
    return model


def timm_logits(model, rows):
    """timm's logits for the image of each row."""
    torch, transform = reference("torch"), timm_transform()
    with torch.no_grad():
        images = [transform(Image.open(row["image"]).convert("RGB")) for row in rows]
        return model(torch.stack(images)).numpy()


@pytest.mark.long
def test_a_pytorch_checkpoint_agrees_with_timm_image_by_image(model, tmp_path):
    torch = reference("torch")
    model = spread_answers_(copy.deepcopy(model))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth.tar")
    output, result, rows = evaluate("a.pth.tar", shared_data("imagenet_samples"), tmp_path, "evaluation.batch_size=32")
    assert "ghostnetv2_1x_imagenet.yaml" in output
    assert "PyTorch checkpoint, its state_dict: ghostnetv2_1x for 1000 classes" in output
    assert len(rows) == result["images"] == 100
    names = load_classes()[1]
    hits_1, hits_5, answers = [], [], set()
    for row, logits in zip(rows, timm_logits(model, rows)):
        order = np.argsort(-logits)
        assert row["top_1"] == names[order[0]], row["image"]
        for place in range(5):  # two classes that are equal within rounding may change places
            ours = [logits[index] for index in np.flatnonzero(np.array(names) == row[f"top_{place + 1}"])]
            assert np.abs(ours - logits[order[place]]).min() < 1e-3 * logits.std(), row["image"]
        best = [names[index] for index in order[:5]]
        hits_1.append(row["label"] == best[0])
        hits_5.append(row["label"] in best)
        answers.add(best[0])
    assert (result["top_1_accuracy"], result["top_5_accuracy"]) == (np.mean(hits_1), np.mean(hits_5))
    assert len(answers) > 10


def test_the_official_ports_checkpoint_evaluates_with_its_own_resize(model, tmp_path):
    samples = sorted((shared_data("imagenet_samples") / "val").iterdir())[:2]
    for folder in samples:
        shutil.copytree(folder, tmp_path / "data" / "val" / folder.name)
    network = copy_weights(model, create_network("ghostnetv2_1x"))
    mindspore.save_checkpoint(network, str(tmp_path / "ghostnetv2_1x.ckpt"))  # without our note, as the port's is
    output, result, _ = evaluate("ghostnetv2_1x.ckpt", "data", tmp_path, "runtime.graph_mode=false")
    assert "ghostnetv2_1x_imagenet_mindspore.yaml" in output
    assert result["images"] == len(find_images(tmp_path / "data")[0]) > 0


def test_the_official_ports_resize_equals_pytorchs_aligned_bilinear(model, monkeypatch):
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    torch = reference("torch")
    network = copy_weights(model, create_network("ghostnetv2_1x", dfc_up_sampling="bilinear_align_corners"))
    interpolate = torch.nn.functional.interpolate

    def aligned(x, size, mode):
        return interpolate(x, size=size, mode="bilinear", align_corners=True)

    monkeypatch.setattr(torch.nn.functional, "interpolate", aligned)
    x = normal(1, 3, 224, 224)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    assert np.abs(network(Tensor(x)).asnumpy() - expected).max() < 1e-5
