"""Networks and files that scripts/benchmark.py and scripts/paper.py measure, with the same weights for all runtimes.

Functions of a worker's options; only they import their frameworks.
"""

from pathlib import Path

import numpy as np

SEED = 0
TASK_CONFIGS = {
    "classification": "classification/ghostnetv2_1x_imagenet.yaml",
    "detection": "detection/yolov3_ghostnetv2_1x_coco.yaml",
    "segmentation": "segmentation/deeplabv3_ghostnetv2_1x_ade20k.yaml",
}
CALIBRATION_IMAGES = 8


def file_of(options, name) -> Path:
    """A file that `prepare` has written for this network."""
    return Path(options["folder"]) / f"{options['network']}.{name}"


def exported(options, ending) -> str:
    """Exported file for the batch of this measurement, or for any."""
    return str(file_of(options, f"{'any' if options['any_batch'] else options['batch']}.{ending}"))


def start_mindspore(options):
    from src.runtime import init_runtime, prepare_environment

    prepare_environment()
    import mindspore

    init_runtime(options.get("device_target"), SEED, graph_mode=True)
    if options["threads"]:
        mindspore.set_context(runtime_num_threads=options["threads"])
    return mindspore


def start_torch(options):
    import torch

    torch.manual_seed(SEED)
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    return torch


def build_task(options):
    """The task whose network is measured, with the settings of its configuration for the paper's data."""
    from src.command_line import CONFIGS
    from src.config import load_config
    from src.tasks import SCHEMAS, create_task

    settings = {"network.name": options.get("name", options["network"])}
    settings.update({f"network.{key}": value for key, value in options.get("options", {}).items()})
    if options["task"] == "classification":
        settings["network.dropout"] = 0.0  # of a training step, as timm's
    if options["task"] == "detection":
        settings["data.image_size"] = options["image_size"]
    overrides = [(key, value, "benchmark") for key, value in settings.items()]
    return create_task(load_config(CONFIGS.parent / TASK_CONFIGS[options["task"]], SCHEMAS, overrides))


def build_mindspore(options):
    """The network with the weights of `prepare`."""
    from src.weights import load_weights

    task = build_task(options)
    network = task.build_network()
    load_weights(network, file_of(options, "safetensors"))
    return task.build_export_network(network).set_train(False)


def build_timm(options):
    import timm
    from safetensors.torch import load_file

    from src.weights.names import TIMM_NAMES

    model = timm.create_model(TIMM_NAMES[options["network"]], drop_rate=0.0)
    model.load_state_dict(load_file(file_of(options, "safetensors")))
    return model.eval()


def prepare_mindspore(options):
    """Weights and this project's files; what the table says about the network."""
    task, network = build_random(options)
    from port_weights import to_pytorch

    from src.weights import write_weights

    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    write_weights(
        to_pytorch(arrays) if options["task"] == "classification" else arrays, file_of(options, "safetensors")
    )
    return export_files(options, task, network)


def prepare_row(options):
    """This project's files of a classifier with `options`, a variant's `name`, called `network`; its size."""
    task, network = build_random(options)
    from src.layers.complexity import count_multiply_adds

    size = (options["image_size"],) * 2
    products = count_multiply_adds(network, size, products=True)
    return {**export_files(options, task, network), "all_multiply_adds": products}


def build_random(options):
    """A task and its network, with random weights and statistics: a file that leaves them out would show."""
    from random_weights import randomise

    start_mindspore(options)
    task = build_task(options)
    return task, randomise(task.build_network())


def export_files(options, task, network):
    """Write the files for all batches and types of weights; the size of the network."""
    from src.export.export import PACKAGES, export
    from src.layers.complexity import count_multiply_adds, count_parameters

    shape = (3, options["image_size"], options["image_size"])
    cell = task.build_export_network(network)
    batches = {"MINDIR": options["batches"], "TFLITE": options["batches"], "ONNX": options["batches"]}
    if options["open_batch"]:
        batches["ONNX"] = (*options["batches"], None)
    for file_format in options["formats"]:
        for batch in batches[file_format]:
            for kind in options["types"] if file_format in PACKAGES else ["float32"]:
                ending = file_format.lower() if kind == "float32" else f"{kind}.{file_format.lower()}"
                path = file_of(options, f"{batch or 'any'}.{ending}")
                chosen = {"describe": task.describe, "weights_type": kind, "calibrate": draw_calibration}
                export(cell, path, file_format, shape, batch, **chosen)
    multiply_adds = count_multiply_adds(network, shape[1:])
    return {"parameters": count_parameters(network), "multiply_adds": multiply_adds}


def draw_calibration(network):
    """Random images that an int8 file is fitted to; its answers do not count here."""
    generator = np.random.default_rng(SEED)
    return generator.standard_normal((CALIBRATION_IMAGES, 3, *network.input_size)).astype(np.float32)


def prepare_plain(options):
    """Plain ONNX files of a detector or segmenter, by both of PyTorch's exporters."""
    start_mindspore(options)
    torch = start_torch(options)
    from benchmark_torch import build_torch

    model = build_torch(options["task"], options["network"], build_mindspore(options))
    for batch in options["batches"]:
        example = torch.zeros(batch, 3, options["image_size"], options["image_size"])
        for name in options["plain"]:
            torch.onnx.export(model, (example,), str(file_of(options, f"{batch}.{name}")), dynamo="dynamo" in name)
    return {}


def prepare_timm(options):
    """timm's own ONNX files, by PyTorch's exporter."""
    torch = start_torch(options)
    model = build_timm(options)
    for batch in (*options["batches"], None):
        example = torch.zeros(batch or 1, 3, options["image_size"], options["image_size"])
        axes = None if batch else {"image": {0: "N"}, "logits": {0: "N"}}
        names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
        torch.onnx.export(model, example, str(file_of(options, f"{batch or 'any'}.timm.onnx")), dynamo=False, **names)
    return {}
