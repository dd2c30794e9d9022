"""One measurement of scripts/benchmark.py, in a process of its own: benchmark_worker.py KIND NAME JSON-OF-OPTIONS

Each kind is a table of functions from the options to a function to time; only they import their frameworks. The
last line of output is JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS.parent), str(SCRIPTS)]

SEED = 0
WARM_UP = 5  # calls that are not timed
TRAINING_RATE = 0.01


def images(options):
    """Random input (N, 3, H, W), the same in every process."""
    size = options["image_size"]
    generator = np.random.default_rng(SEED)
    return generator.standard_normal((options["batch"], 3, size, size)).astype(np.float32)


def file_of(options, name) -> Path:
    """A file that `prepare` has written for this network."""
    return Path(options["folder"]) / f"{options['network']}.{name}"


def exported(options, ending) -> str:
    """Exported file for the batch of this measurement, or for any."""
    return str(file_of(options, f"{'any' if options['any_batch'] else options['batch']}.{ending}"))


# ---- preparation: files with the same weights for all


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


def build_mindspore(options):
    """The network with the weights of `prepare`."""
    from src.ghostnetv2 import create_network
    from src.weights import load_weights

    network = create_network(options["network"], dropout=0.0)
    load_weights(network, file_of(options, "safetensors"))
    return network.set_train(False)


def build_timm(options):
    import timm
    from safetensors.torch import load_file

    from src.weights.names import TIMM_NAMES

    model = timm.create_model(TIMM_NAMES[options["network"]], drop_rate=0.0)
    model.load_state_dict(load_file(file_of(options, "safetensors")))
    return model.eval()


def prepare_mindspore(options):
    """Weights and this project's files; what the table says about the network."""
    mindspore = start_mindspore(options)
    from port_weights import to_pytorch

    from src.classification.export_graph import describe_classifier
    from src.export.export import export
    from src.ghostnetv2 import create_network
    from src.layers.complexity import count_multiply_adds, count_parameters
    from src.weights import write_weights

    network = create_network(options["network"], dropout=0.0).set_train(False)
    generator = np.random.default_rng(SEED)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.5, 0.5), "moving_mean": (-0.5, 0.5), "moving_variance": (0.5, 1.5)}
    for parameter in network.get_parameters():  # random statistics: a file that leaves them out would show
        limits = ranges.get(parameter.name.rpartition(".")[2])
        if limits:
            values = generator.uniform(*limits, parameter.shape).astype(np.float32)
            parameter.set_data(mindspore.Tensor(values))
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    write_weights(to_pytorch(arrays), file_of(options, "safetensors"))
    shape = (3, options["image_size"], options["image_size"])
    batches = {"MINDIR": options["batches"], "TFLITE": options["batches"], "ONNX": (*options["batches"], None)}
    for file_format in options["formats"]:
        for batch in batches[file_format]:
            path = file_of(options, f"{batch or 'any'}.{file_format.lower()}")
            export(network, path, file_format, shape, batch, describe=describe_classifier)
    multiply_adds = count_multiply_adds(network, shape[1:])
    return {"parameters": count_parameters(network), "multiply_adds": multiply_adds}


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


# ---- inference: functions that give the logits


def infer_mindspore(options):
    start_mindspore(options)
    from mindspore import Tensor

    network, x = build_mindspore(options), Tensor(images(options))
    return lambda: network(x).asnumpy()


def infer_mindir(options):
    mindspore = start_mindspore(options)
    cell = mindspore.nn.GraphCell(mindspore.load(exported(options, "mindir")))
    x = mindspore.Tensor(images(options))
    return lambda: cell(x).asnumpy()


def infer_onnx(options, ending="onnx"):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    if options["threads"]:
        settings.intra_op_num_threads = options["threads"]
    session = onnxruntime.InferenceSession(exported(options, ending), settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images(options)}
    return lambda: session.run(None, feed)[0]


def infer_litert(options):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(exported(options, "tflite"), num_threads=options["threads"] or os.cpu_count())
    interpreter.allocate_tensors()
    image, output = (ports[0]["index"] for ports in (interpreter.get_input_details(), interpreter.get_output_details()))
    x = np.ascontiguousarray(images(options).transpose(0, 2, 3, 1))  # (N, C, H, W) -> (N, H, W, C)

    def run():
        interpreter.set_tensor(image, x)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def infer_timm_onnx(options):
    return infer_onnx(options, "timm.onnx")


def infer_timm(options, compiled=False):
    torch = start_torch(options)
    model, x = build_timm(options), torch.from_numpy(images(options))
    model = torch.compile(model) if compiled else model

    def run():
        with torch.inference_mode():
            return model(x).numpy()

    return run


def infer_timm_compiled(options):
    return infer_timm(options, compiled=True)


def infer_openvino(options):
    import openvino

    core = openvino.Core()
    model = core.read_model(exported(options, "timm.onnx"))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if options["threads"]:
        settings["INFERENCE_NUM_THREADS"] = options["threads"]
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    x = images(options)
    return lambda: request.infer({0: x})[0]


# ---- training: one step of SGD with momentum


def train_mindspore(options):
    start_mindspore(options)
    from mindspore import Tensor

    from src.classification.loss import ClassificationLoss
    from src.ranks import Ranks
    from src.settings import OptimizerSettings
    from src.training.optim import build_optimizer
    from src.training.step import TrainStep

    network = build_mindspore(options)
    settings = OptimizerSettings(name="sgd", momentum=0.9, weight_decay=1e-5)
    optimizer = build_optimizer(network.trainable_params(), [TRAINING_RATE] * 10_000, settings)
    loss = ClassificationLoss(network, 0.0)
    step = TrainStep(loss, optimizer, 0.0, 1, "none", 1.0, 0.0, Ranks(), seed=0).set_train()
    x, labels = Tensor(images(options)), Tensor(np.arange(options["batch"], dtype=np.int32))
    return lambda: step(x, labels).asnumpy()


def train_timm(options):
    torch = start_torch(options)
    model = build_timm(options).train()
    optimizer = torch.optim.SGD(model.parameters(), TRAINING_RATE, momentum=0.9, weight_decay=1e-5)
    x, labels = torch.from_numpy(images(options)), torch.arange(options["batch"])

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach().numpy()

    return step


KINDS = {
    "prepare": {"mindspore": prepare_mindspore, "timm": prepare_timm},
    "infer": {
        "mindspore": infer_mindspore,
        "mindir": infer_mindir,
        "onnx": infer_onnx,
        "litert": infer_litert,
        "timm": infer_timm,
        "timm_compiled": infer_timm_compiled,
        "timm_onnx": infer_timm_onnx,
        "openvino": infer_openvino,
    },
    "train": {"mindspore": train_mindspore, "timm": train_timm},
}


def main():
    kind, name, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if kind == "pipeline":
        from benchmark_pipeline import measure_pipeline

        print(json.dumps(measure_pipeline(name, options)))
        return
    function = KINDS[kind][name]
    if kind == "prepare":
        print(json.dumps(function(options)))
        return
    run = function(options)
    output = run()  # before any training step changed the weights
    for _ in range(WARM_UP - 1):
        run()
    seconds = []
    for _ in range(options["runs"]):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "output": output.ravel().astype(float).tolist()}))


if __name__ == "__main__":
    main()
