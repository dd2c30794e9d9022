"""Evaluation of published kinds of checkpoints on real pictures, as a user runs it, against timm."""

import csv
import json
import subprocess
import sys

import mindspore
import numpy as np
from conftest import PROJECT, copy_weights, randomise_, reference, shared_data
from mindspore import Tensor
from PIL import Image

from src.classification.imagenet import load_classes
from src.ghostnetv2 import create_network
from src.images import find_images, load_image


def evaluate(checkpoint, cwd):
    """Run eval.py without `--config`; its output, the result and the rows of the predictions."""
    command = [sys.executable, PROJECT / "eval.py", "--data_url", shared_data("imagenet_samples")]
    command += ["--checkpoint_path", checkpoint, "--output", "result.json", "--output_dir", "details"]
    command += ["evaluation.batch_size=32"]
    result = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((cwd / "details" / "predictions.csv").open()))
    return result.stdout, json.loads((cwd / "result.json").read_text()), rows


def random_model():
    """timm's ghostnetv2_100 with random weights whose answers differ from picture to picture."""
    torch, timm = reference("torch"), reference("timm")
    torch.manual_seed(0)
    return randomise_(timm.create_model("ghostnetv2_100"))


def timm_transform():
    return reference("timm.data").create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875)


def spread_answers_(model):
    """Set the batch statistics to those of some pictures and centre the classifier, so that answers vary."""
    torch, transform = reference("torch"), timm_transform()
    paths = find_images(shared_data("imagenet_samples") / "val")[::5]
    pictures = torch.stack([transform(load_image(path)) for path in paths])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures)
        features = model.eval().forward_head(model.forward_features(pictures), pre_logits=True)
        model.classifier.bias.copy_(model.classifier.bias - model.classifier(features).mean(0))
    return model


def timm_logits(model, row):
    """timm's logits for the picture of a row."""
    torch, transform = reference("torch"), timm_transform()
    with Image.open(row["image"]) as picture, torch.no_grad():
        return model(transform(picture.convert("RGB"))[None])[0].numpy()


def test_a_pytorch_checkpoint_agrees_with_timm_picture_by_picture(tmp_path):
    torch = reference("torch")
    model = spread_answers_(random_model())
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth.tar")
    output, result, rows = evaluate("a.pth.tar", tmp_path)
    assert "ghostnetv2_1x_imagenet.yaml" in output
    assert "PyTorch checkpoint, its state_dict: ghostnetv2_1x for 1000 classes" in output
    assert len(rows) == result["images"] == 100
    names = load_classes()[1]
    hits_1, hits_5, answers = [], [], set()
    for row in rows:
        logits = timm_logits(model, row)
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


def test_the_official_ports_checkpoint_evaluates_with_its_own_resize(tmp_path):
    model = random_model()
    network = copy_weights(model, create_network("ghostnetv2_1x"))
    mindspore.save_checkpoint(network, str(tmp_path / "ghostnetv2_1x.ckpt"))  # without our note, as the port's is
    output, result, _ = evaluate("ghostnetv2_1x.ckpt", tmp_path)
    assert "ghostnetv2_1x_imagenet_mindspore.yaml" in output
    assert result["images"] == 100


def test_the_official_ports_resize_equals_pytorchs_aligned_bilinear(monkeypatch):
    torch = reference("torch")
    model = random_model()
    network = copy_weights(model, create_network("ghostnetv2_1x", dfc_up_sampling="bilinear_align_corners"))
    interpolate = torch.nn.functional.interpolate

    def aligned(x, size, mode):
        return interpolate(x, size=size, mode="bilinear", align_corners=True)

    monkeypatch.setattr(torch.nn.functional, "interpolate", aligned)
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    assert np.abs(network(Tensor(x)).asnumpy() - expected).max() < 1e-5
