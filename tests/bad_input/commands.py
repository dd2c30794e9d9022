"""Flags and scripts."""

import os

from bad_input.case import CLASSIFICATION, DETECTION, WEIGHTS, BadInput
from helpers import reference

LOADED = ("--config", CLASSIFICATION, "--checkpoint_path", WEIGHTS)
INT8 = (*LOADED, "--file_format", "TFLITE", "--weights_type", "int8")
REQUIRED = "the following arguments are required: --checkpoint_path"


def make_folder(name):
    """Prepare a folder."""
    return lambda folder: (folder / name).mkdir()


CASES = {
    "flag: required one missing in eval.py": BadInput("eval.py", ("--config", CLASSIFICATION), REQUIRED),
    "flag: required one missing in export.py": BadInput("export.py", ("--config", CLASSIFICATION), REQUIRED),
    "flag: required one missing in predict.py": BadInput("scripts/predict.py", ("classes",), REQUIRED),
    "flag: unknown": BadInput("eval.py", (*LOADED, "--data-url", "x"), "unrecognized arguments: --data-url"),
    "flag: no abbreviations": BadInput("train.py", ("--conf", "x.yaml"), "unrecognized arguments: --conf"),
    "flag: without its value": BadInput("train.py", ("--config",), "argument --config: expected one argument"),
    "flag: no number": BadInput(
        "train.py", ("--num_classes", "ten"), "argument --num_classes: invalid int value: 'ten'"
    ),
    "flag: device": BadInput("train.py", ("--device_target", "TPU"), "argument --device_target: invalid choice: 'TPU'"),
    "flag: format": BadInput("export.py", (*LOADED, "--file_format", "onnx"), "argument --file_format: invalid choice"),
    "flag: weights": BadInput("eval.py", (*LOADED, "--weights", "best"), "argument --weights: invalid choice: 'best'"),
    "flag: fine-tuning from nothing": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, "--finetune"),
        "--finetune: train.finetune: takes part of a checkpoint, which pre_trained names",
    ),
    "flag: empty dataset": BadInput("eval.py", (*LOADED, "--data_url", ""), "argument --data_url: is empty"),
    "flag: empty checkpoint": BadInput("eval.py", ("--checkpoint_path", ""), "argument --checkpoint_path: is empty"),
    "flag: empty start": BadInput("train.py", ("--pre_trained", ""), "argument --pre_trained: is empty"),
    "flag: empty resume": BadInput("train.py", ("--resume", ""), "argument --resume: is empty"),
    "flag: empty result": BadInput("eval.py", (*LOADED, "--output", ""), "argument --output: is empty"),
    "flag: empty image": BadInput("scripts/predict.py", ("", "--checkpoint_path", WEIGHTS), "is empty"),
    "flag: no image": BadInput(
        "scripts/predict.py", ("data.path=x", "--checkpoint_path", WEIGHTS), "no IMAGE is given"
    ),
    "override: no key": BadInput("train.py", ("--config", CLASSIFICATION, "=3"), "'=3' is not of the form"),
    "override: no value": BadInput("train.py", ("--config", CLASSIFICATION, "train"), "'train' is not of the form"),
    "data: the path is empty": BadInput("train.py", ("--config", CLASSIFICATION, "data.path="), "data.path: "),
    "data: the path is an empty text": BadInput(
        "train.py", ("--config", CLASSIFICATION, "data.path=''"), "data.path: "
    ),
    "export: empty name": BadInput("export.py", (*LOADED, "--file_name", ""), "argument --file_name: is empty"),
    "export: name of a folder": BadInput(
        "export.py", (*LOADED, "--file_name", "out/"), "--file_name 'out/': names no file"
    ),
    "export: name with nothing but an ending": BadInput(
        "export.py", (*LOADED, "--file_name", ".mindir"), "--file_name '.mindir': names no file"
    ),
    "export: a folder is there": BadInput(
        "export.py", (*LOADED, "--file_name", "out", "--force"), "out.mindir: is a folder", make_folder("out.mindir")
    ),
    "export: name too long": BadInput("export.py", (*LOADED, "--file_name", "x" * 300), "File name too long"),
    "export: no images": BadInput("export.py", (*LOADED, "--batch_size", "0"), "--batch_size 0 is out of range"),
    "export: a billion images": BadInput("export.py", (*LOADED, "--batch_size", str(10**9)), f"--batch_size {10**9}"),
    "export: huge images": BadInput(
        "export.py", (*LOADED, "--image_size", "99999999x99999999"), "--image_size 9999999"
    ),
    "export: tiny images": BadInput(
        "export.py", (*LOADED, "--image_size", "8x8"), "images of 8x8 pixels are too small"
    ),
    "export: size in words": BadInput(
        "export.py", (*LOADED, "--image_size", "big"), "--image_size 'big' is not of the"
    ),
    "export: size and batch exclude": BadInput(
        "export.py", (*LOADED, "--batch_size", "2", "--dynamic_batch"), "not allowed with argument --batch_size"
    ),
    "export: softmax of boxes": BadInput(
        "export.py", ("--config", DETECTION, "--checkpoint_path", WEIGHTS, "--softmax"), "--softmax: is for one output"
    ),
    "export: TFLite with an open batch": BadInput(
        "export.py",
        (*LOADED, "--file_format", "TFLITE", "--dynamic_batch"),
        "--dynamic_batch: TFLITE files have a fixed",
    ),
    "export: TFLite with batch normalisation": BadInput(
        "export.py",
        (*LOADED, "--file_format", "TFLITE", "--fold_bn", "false"),
        "TFLITE: always has batch normalisation folded",
    ),
    "export: no such weights": BadInput(
        "export.py",
        (*LOADED, "--file_format", "TFLITE", "--weights_type", "int4"),
        "argument --weights_type: invalid choice: 'int4'",
    ),
    "export: float16 in another format": BadInput(
        "export.py",
        (*LOADED, "--weights_type", "float16"),
        "--weights_type float16: is for ONNX and TFLITE, MINDIR has float32",
    ),
    "export: int8 of ONNX without images": BadInput(
        "export.py",
        (*LOADED, "--file_format", "ONNX", "--weights_type", "int8"),
        "--weights_type int8: needs --calibration_data FOLDER",
    ),
    "export: int8 without images": BadInput(
        "export.py",
        INT8,
        "--weights_type int8: needs --calibration_data FOLDER",
    ),
    "export: images without int8": BadInput(
        "export.py", (*LOADED, "--calibration_data", "classes"), "--calibration_data: is for --weights_type int8"
    ),
    "export: no such folder of images": BadInput(
        "export.py", (*INT8, "--calibration_data", "nowhere"), "--calibration_data nowhere: no such folder"
    ),
    "export: empty folder of images": BadInput(
        "export.py", (*INT8, "--calibration_data", "empty"), "empty: holds no images", make_folder("empty")
    ),
    "export: images of another size": BadInput(
        "export.py",
        (*INT8, "--calibration_data", "classes", "--image_size", "40x48"),
        "--calibration_data: the settings make images of 33x33, the file takes 40x48",
        lambda folder: (reference("ai_edge_litert"), reference("ai_edge_quantizer")),
    ),
    "result: written over a folder": BadInput("eval.py", (*LOADED, "--output", "classes"), "classes: is a folder"),
    "show_batch: no PNG": BadInput(
        "scripts/show_batch.py", ("--config", CLASSIFICATION, "--output", "x.xyz"), "x.xyz: the drawing is a PNG file"
    ),
    "show_batch: no rows": BadInput(
        "scripts/show_batch.py", ("--rows", "0"), "--rows and --columns must be at least 1 and at most 32"
    ),
    "show_batch: a billion columns": BadInput(
        "scripts/show_batch.py", ("--columns", str(10**9)), "--rows and --columns must be at least 1 and at most 32"
    ),
    "show_errors: another task": BadInput(
        "scripts/show_errors.py",
        ("--config", DETECTION, "--checkpoint_path", WEIGHTS),
        "task: detection has no classes of whole images to confuse",
    ),
    "show_errors: no images": BadInput(
        "scripts/show_errors.py", (*LOADED, "--count", "0"), "--count must be at least 1 and at most 1000"
    ),
    "show_errors: a billion images": BadInput(
        "scripts/show_errors.py", (*LOADED, "--count", str(10**9)), "--count must be at least 1 and at most 1000"
    ),
    "demo data: below a file": BadInput(
        "scripts/make_demo_data.py", (f"{CLASSIFICATION}/digits",), f"{CLASSIFICATION}/digits: cannot be written: Not a"
    ),
    "demo data: a file is there": BadInput(
        "scripts/make_demo_data.py", (CLASSIFICATION,), f"{CLASSIFICATION}: cannot be written: Not a directory"
    ),
    "demo data: another task": BadInput(
        "scripts/make_demo_data.py", ("x", "--task", "speech"), "argument --task: invalid"
    ),
    "port: no input": BadInput("scripts/port_weights.py", ("--output", "x.ckpt"), "arguments are required: --input"),
    "port: below a file": BadInput(
        "scripts/port_weights.py",
        ("--input", WEIGHTS, "--output", f"{CLASSIFICATION}/x.safetensors"),
        f"{CLASSIFICATION}: is a file, where a folder is needed",
    ),
    "port: another ending": BadInput(
        "scripts/port_weights.py", ("--input", WEIGHTS, "--output", "x.onnx"), "x.onnx: the output is for PyTorch"
    ),
    "port: name too long": BadInput(
        "scripts/port_weights.py", ("--input", WEIGHTS, "--output", "x" * 300 + ".safetensors"), "File name too long"
    ),
    "fetch: unknown name": BadInput(
        "scripts/fetch_weights.py", ("ghostnetv2_1x",), "ghostnetv2_1x: is not published (did you mean '"
    ),
    "fetch: no name": BadInput("scripts/fetch_weights.py", (), "NAME or --list is needed, one of both"),
    "port: unknown names": BadInput(
        "scripts/port_weights.py", ("--input", WEIGHTS, "--output", "x", "--names", "timm"), "argument --names: invalid"
    ),
    "run: a file is in the way": BadInput(
        "train.py", ("--config", CLASSIFICATION, "--output_dir", CLASSIFICATION), f"{CLASSIFICATION}: exists and is not"
    ),
    "run: below a file": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, "--output_dir", os.path.join(CLASSIFICATION, "run")),
        f"{CLASSIFICATION}/run: cannot be made: Not a directory",
    ),
    "resume: weights that are in no run's folder": BadInput(
        "train.py", ("--resume", WEIGHTS), f"{WEIGHTS}: is not in the folder of a run, which has a config.yaml"
    ),
    "resume: a setting is in its place": BadInput(
        "train.py", ("--resume", "train.epochs"), "train.epochs: no such checkpoint; --resume takes"
    ),
    "prepare: no archive": BadInput("scripts/prepare_imagenet.py", ("out",), "--train or --val is needed, or --check"),
    "prepare: images without labels": BadInput(
        "scripts/prepare_imagenet.py", ("out", "--val", WEIGHTS), "--labels is needed, too"
    ),
    "prepare: no annotations": BadInput(
        "scripts/prepare_coco.py", ("out", "--val", "x.zip"), "--annotations is needed, too"
    ),
    "prepare: an archive to check": BadInput(
        "scripts/prepare_ade20k.py", ("ade", "--check", "--archive", "x.zip"), "--archive: --check unpacks nothing"
    ),
    "prepare: no jobs": BadInput("scripts/prepare_ade20k.py", ("x", "--jobs", "0"), "--jobs 0 is out of range"),
    "prepare: another file": BadInput(
        "scripts/prepare_ade20k.py", ("x", "--archive", WEIGHTS), f"{WEIGHTS}: is not a whole zip file"
    ),
    "prepare: below a file": BadInput(
        "scripts/prepare_ade20k.py", (f"{CLASSIFICATION}/ade", "--check"), f"{CLASSIFICATION}/ade: no such folder"
    ),
    "prepare: nothing to check": BadInput(
        "scripts/prepare_imagenet.py", ("ade", "--check"), f"{os.path.join('ade', 'train')}: no such folder"
    ),
    "list cache: a file": BadInput(
        "train.py",
        ("--config", CLASSIFICATION, f"data.list_cache={CLASSIFICATION}"),
        f"{CLASSIFICATION}: is a file, where a folder is needed",
    ),
    "benchmark: no network": BadInput(
        "scripts/benchmark.py", ("--networks", "resnet50"), "argument --networks: invalid"
    ),
}
