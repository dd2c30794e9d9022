"""Weights files, exported files and checkpoints of runs."""

import json
import pickle
import struct

import numpy as np
from bad_input.case import CLASSIFICATION, DETECTION, SEGMENTATION, BadInput
from bad_input.weights_files import (
    RUN,
    Payload,
    build_diverged,
    change_bytes,
    change_weights,
    lose_one,
    spoil_all,
    spoil_one,
    to_bytes,
    to_complex,
    write,
    write_arrays,
    write_entries,
    write_run,
    write_safetensors,
    write_torch,
    write_zip,
)
from helpers import reference

PROGRESS = {"batches_per_epoch": 3, "ranks": 1, "epoch": 0, "batch": 1, "losses": [0.5], "rows": [], "kept": []}
MISFIT = "does not fit the network: "
NOT_WHOLE = "is not a whole PyTorch checkpoint: "


def resume(message, progress):
    """A case of `--resume` from a run whose note of the progress is a text, or `PROGRESS` with other values."""
    text = progress if isinstance(progress, str) else json.dumps({**PROGRESS, **progress})
    message = f"{RUN}: is damaged, in its note of the progress: {message}"
    return BadInput("train.py", ("--config", CLASSIFICATION, "--resume", RUN), message, write_run(text))


def evaluate(name, message, prepare=None, config=CLASSIFICATION, *settings):
    """A case of eval.py with a weights file."""
    arguments = ("--config", config, "--checkpoint_path", name, *settings)
    return BadInput("eval.py", arguments, f"{name}: {message}", prepare)


def evaluate_pytorch(message, prepare):
    """A case of eval.py with `x.pth`, whatever its line begins with."""
    return BadInput("eval.py", ("--config", CLASSIFICATION, "--checkpoint_path", "x.pth"), message, prepare)


def write_network(variant, num_classes=2, **options):
    """Prepare `x.ckpt`, the weights of a network."""

    def prepare(folder):
        from src.networks import create_network
        from src.weights import save_weights

        save_weights(create_network(variant, num_classes, **options), folder / "x.ckpt")

    return prepare


def finetune(config, message, prepare, *settings):
    """A case of `--finetune` from `x.ckpt`."""
    arguments = ("--config", config, "--finetune", "--pre_trained", "x.ckpt", *settings)
    return BadInput("train.py", arguments, f"x.ckpt: {message}", prepare)


BY_OPERATOR = "runtime.graph_mode=false"
LARGE_PICKLE = b"\x80\x02" + b"]" * 20_000_000 + b"."
CASES = {
    "weights: no such file": evaluate("none.ckpt", "no such file"),
    "weights: folder": evaluate("classes", "is a folder, expected a weights file"),
    "weights: empty": evaluate("x.ckpt", "is empty", write("x.ckpt", b"")),
    "weights: text": evaluate("x.pth", "is a text file, not weights", write("x.pth", b"<html>\n")),
    "weights: one byte": evaluate("x.pth", "is not a whole", write("x.pth", b"\x80")),
    "weights: zeros": evaluate("x.ckpt", "is not a whole MindSpore checkpoint, nor", write("x.ckpt", bytes(600))),
    "weights: PNG": evaluate("classes/val/a/0.png", "is a PNG image, not weights"),
    "weights: GGUF": evaluate("x.bin", "is a GGUF file, not weights", write("x.bin", b"GGUF\x03" + bytes(90))),
    "weights: HDF5": evaluate("x.h5", "is an HDF5 file", write("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(90))),
    "weights: gzip": evaluate("x.pth", "is compressed by gzip", write("x.pth", b"\x1f\x8b\x08" + bytes(90))),
    "weights: tar": evaluate("x.tar", "is a tar archive, such as PyTorch", write("x.tar", bytes(257) + b"ustar\x00")),
    "weights: NumPy": evaluate("x.npy", "is a NumPy array", write("x.npy", b"\x93NUMPY\x01" + bytes(90))),
    "weights: another zip": evaluate(
        "x.zip", NOT_WHOLE + "the archive holds no data.pkl", write_zip("x.zip", {"a": b""})
    ),
    "weights: ONNX": evaluate("x.ckpt", "is perhaps an ONNX file", write("x.ckpt", b"\x08\x09\x12\x04" + bytes(90))),
    "weights: MINDIR": evaluate(
        "x.ckpt", "is a MINDIR file (", write("x.ckpt", b"\n\x031.1\x12\x09MindSpore*\x062.10.0" + bytes(90))
    ),
    "weights: encrypted": evaluate(
        "x.ckpt", "is an encrypted MindSpore checkpoint", write("x.ckpt", b"\xd8\x5e\x3a\x7f" + bytes(90))
    ),
    "checkpoint: cut off": evaluate(
        "x.ckpt", "is not a whole MindSpore checkpoint", change_bytes("x.ckpt", lambda content: content[:-1000])
    ),
    "checkpoint: unknown type": evaluate(
        "x.ckpt", "a is of type Int4, which is not read", write_entries("x.ckpt", ("a", "Int4", [2], b"a"))
    ),
    "checkpoint: too few bytes": evaluate(
        "x.ckpt", "a is damaged: 4 bytes for Float32 (2,)", write_entries("x.ckpt", ("a", "Float32", [2], bytes(4)))
    ),
    "checkpoint: negative shape": evaluate(
        "x.ckpt",
        "a is damaged: 4 bytes for Float32 (-2, -2)",
        write_entries("x.ckpt", ("a", "Float32", [-2, -2], bytes(4))),
    ),
    "checkpoint: name twice": evaluate(
        "x.ckpt",
        "a is there twice",
        write_entries("x.ckpt", *[(name, "Float32", [1], bytes(4)) for name in ("a", "b", "a")]),
    ),
    "checkpoint: name twice in a row": evaluate(
        "x.ckpt",
        "a is damaged: 8 bytes for Float32 (1,)",
        write_entries("x.ckpt", *2 * [("a", "Float32", [1], bytes(4))]),
    ),
    "checkpoint: notes alone": evaluate("x.ckpt", "holds no weights", write_arrays("x.ckpt", {}, epoch="3")),
    "checkpoint: integers": evaluate(
        "x.ckpt", MISFIT + "2 wrong type (conv_stem.weight is int8, needs float32, ", change_weights("x.ckpt", to_bytes)
    ),
    "checkpoint: a missing array": evaluate(
        "x.ckpt",
        MISFIT + "1 missing (conv_head.bias)",
        change_weights("x.ckpt", lose_one),
    ),
    "PyTorch: runs a command": evaluate(
        "x.pth", "is refused: it would call posix.system, which", write("x.pth", pickle.dumps({"a": Payload()}))
    ),
    "PyTorch: empty state dict": evaluate(
        "x.pth", "holds no weights", write_torch("x.pth", lambda torch: {"state_dict": {}})
    ),
    "PyTorch: a list": evaluate("x.pth", "holds no weights", write_torch("x.pth", lambda torch: [torch.zeros(2)])),
    "PyTorch: a plain pickle": evaluate(
        "x.pth", NOT_WHOLE + "a pickle, but none that torch.save wrote", write("x.pth", pickle.dumps([1, 2]))
    ),
    "PyTorch: a tensor of 40 GB": evaluate_pytorch(
        "1 unexpected (x)", write_torch("x.pth", lambda torch: {"x": torch.zeros(1).expand(10**10)})
    ),
    "PyTorch: weights of 40 GB": evaluate_pytorch(
        "1 wrong shape (classifier.bias is (10000000000,), needs (2,))",
        write_torch("x.pth", lambda torch: {"classifier.bias": torch.zeros(1).expand(10**10)}),
    ),
    "PyTorch: complex": evaluate_pytorch(
        "1 wrong type (conv_stem.weight is complex64, needs float32)", write_torch("x.pth", to_complex)
    ),
    "PyTorch: bomb": evaluate_pytorch(
        "bytes unpack to 20000003, which is refused", write_zip("x.pth", {"a/data.pkl": LARGE_PICKLE})
    ),
    "PyTorch: older file cut off": evaluate(
        "x.pth",
        NOT_WHOLE + "it is cut off",
        lambda folder: (
            write_torch("y.pth", lambda torch: {"a": torch.zeros(9)}, _use_new_zipfile_serialization=False)(folder),
            (folder / "x.pth").write_bytes((folder / "y.pth").read_bytes()[:-1]),
        ),
    ),
    "safetensors: claims more": evaluate(
        "x.safetensors",
        "is not a whole safetensors file: ",
        write_safetensors("x.safetensors", {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
    ),
    "safetensors: header claims more": evaluate(
        "x.safetensors", "is not a whole safetensors file: ", write("x.safetensors", struct.pack("<Q", 99) + b"{}")
    ),
    "safetensors: float8": evaluate(
        "x.safetensors",
        "a is of type F8_E4M3, which is not read",
        write_safetensors("x.safetensors", {"a": {"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}}),
    ),
    "safetensors: nothing": evaluate(
        "x.safetensors", "holds no weights", write_safetensors("x.safetensors", {"__metadata__": {"a": "b"}}, b"")
    ),
    "diverged: classification": evaluate(
        "x.ckpt", "its network gives nan or inf", change_weights("x.ckpt", spoil_all), CLASSIFICATION, BY_OPERATOR
    ),
    "diverged: one logit": evaluate(
        "x.ckpt", "its network gives nan or inf", change_weights("x.ckpt", spoil_one), CLASSIFICATION, BY_OPERATOR
    ),
    "diverged: detection": evaluate(
        "x.ckpt", "its network gives nan or inf", build_diverged("x.ckpt", DETECTION), DETECTION, BY_OPERATOR
    ),
    "diverged: segmentation": evaluate(
        "x.ckpt", "its network gives nan or inf", build_diverged("x.ckpt", SEGMENTATION), SEGMENTATION, BY_OPERATOR
    ),
    "diverged: prediction": BadInput(
        "scripts/predict.py",
        ("classes/val/a/0.png", "--config", CLASSIFICATION, "--checkpoint_path", "x.ckpt", BY_OPERATOR),
        "x.ckpt: its network gives nan or inf",
        change_weights("x.ckpt", spoil_all),
    ),
    "diverged: prediction of segmentation": BadInput(
        "scripts/predict.py",
        ("classes/val/a/0.png", "--config", SEGMENTATION, "--checkpoint_path", "x.ckpt", BY_OPERATOR),
        "x.ckpt: its network gives nan or inf",
        build_diverged("x.ckpt", SEGMENTATION),
    ),
    "weights: another width": evaluate(
        "x.ckpt",
        "holds mobilenetv2_1x at width 1.06 for 2 classes, the network is mobilenetv2_1x for 2 classes; "
        "network.name=mobilenetv2_1x network.width=1.06 builds that one; ",
        write_network("mobilenetv2_1x", width=1.06),
        CLASSIFICATION,
        "network.name=mobilenetv2_1x",
    ),
    "weights: a classifier that is a number": evaluate(
        "x.safetensors",
        "holds ghostnet_1x without a classifier, the network is ghostnet_1x for 2 classes; --finetune keeps the rest",
        change_weights("x.safetensors", lambda arrays: arrays.update({"classifier.weight": np.ones((), np.float32)})),
    ),
    "finetune: other lengths of DFC": finetune(
        CLASSIFICATION,
        "holds ghostnetv2_1x for 3 classes, the network is ghostnetv2_1x for 2 classes; 28 wrong shape (blocks.2.",
        write_network("ghostnetv2_1x", num_classes=3, dfc_kernel_size=7),
        "network.name=ghostnetv2_1x",
    ),
    "finetune: a backbone of another width": finetune(
        DETECTION,
        "does not fit the backbone: 255 wrong shape (conv_stem.weight is (16, 3, 3, 3), needs (32, 3, 3, 3), ",
        write_network("mobilenetv2_1x", width=0.5),
        "network.name=mobilenetv2_1x",
    ),
    "finetune: another backbone": finetune(
        SEGMENTATION,
        "does not fit the backbone: 144 unexpected (blocks.1.0.attention.joint.conv.weight, ",
        write_network("mobilenetv2_ca_1x"),
        "network.name=mobilenetv2_1x",
    ),
    "export: a damaged checkpoint": BadInput(
        "export.py",
        ("--config", CLASSIFICATION, "--checkpoint_path", "x.ckpt"),
        "x.ckpt: is not a whole MindSpore checkpoint",
        change_bytes("x.ckpt", lambda content: content[: len(content) // 2]),
    ),
    "port: a file of no network": BadInput(
        "scripts/port_weights.py",
        ("--input", "x.ckpt", "--output", "y.pth"),
        "x.ckpt: holds no network that this project knows",
        write_arrays("x.ckpt", {"a": np.zeros(2, np.float32)}),
    ),
    "pre_trained: an exported file": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, "--pre_trained", "x.onnx"),
        "x.onnx: is perhaps an ONNX file",
        write("x.onnx", b"\x08\x09\x12\x04" + bytes(90)),
    ),
    "exported: MINDIR of a checkpoint": evaluate(
        "x.mindir", "is not a whole MINDIR file", change_bytes("x.mindir", lambda content: content)
    ),
    "exported: empty MINDIR": evaluate("x.mindir", "is not a whole MINDIR file", write("x.mindir", b"")),
    "exported: folder": evaluate("x.mindir", "is a folder", lambda folder: (folder / "x.mindir").mkdir()),
    "exported: no such MINDIR": evaluate("x.mindir", "no such file"),
    "exported: ONNX of a checkpoint": evaluate(
        "x.onnx",
        "onnxruntime cannot read it: ",
        lambda folder: (reference("onnxruntime"), change_bytes("x.onnx", lambda content: content)(folder)),
    ),
    "exported: empty ONNX": evaluate(
        "x.onnx",
        "onnxruntime cannot read it: No graph was found",
        lambda folder: (reference("onnxruntime"), write("x.onnx", b"")(folder)),
    ),
    "exported: settings of a damaged file": BadInput(
        "eval.py",
        ("--checkpoint_path", "x.mindir"),
        "x.mindir: is not a whole MINDIR file",
        write("x.mindir", b"\x0a\x10"),
    ),
    "run: progress that is no JSON": resume("it is not JSON", "{"),
    "run: progress that is no object": resume("it is no JSON object", "[1]"),
    "run: progress without keys": resume("batch, batches_per_epoch, epoch, kept, losses, ranks, rows: missing", "{}"),
    "run: unknown key": resume("speed: unknown", {"speed": 1}),
    "run: text for a number": resume('epoch: "1" is impossible', {"epoch": "1"}),
    "run: negative batch": resume("batch: -1 is impossible", {"batch": -1}),
    "run: batch beyond the epoch": resume("batch: 4 is behind the epoch's last, 3", {"batch": 4}),
    "run: losses of text": resume('losses: ["a"] is impossible', {"losses": ["a"]}),
    "run: rows without an epoch": resume('rows: [{"loss": 1}] is impossible', {"rows": [{"loss": 1}]}),
    "run: a kept one without an epoch": resume("kept: [[0.5]] is impossible", {"kept": [[0.5]]}),
    "run: weights alone": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, "--resume", RUN),
        f"{RUN}: holds weights only",
        lambda folder: (write_run("{}")(folder), write_arrays(RUN, {"weight": np.zeros(2, np.float32)})(folder)),
    ),
    "run: cut off": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, "--resume", RUN),
        f"{RUN}: is not a whole MindSpore checkpoint",
        lambda folder: (write_run("{}")(folder), change_bytes(RUN, lambda content: content[:-1000])(folder)),
    ),
}
