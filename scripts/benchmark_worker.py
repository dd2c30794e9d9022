"""One measurement of scripts/benchmark.py, in a process of its own: benchmark_worker.py KIND NAME JSON-OF-OPTIONS

Each kind is a table of functions from the options to a function to time; only they import their frameworks. The
last line of output is JSON.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS.parent), str(SCRIPTS)]

from benchmark_files import (
    SEED,
    build_mindspore,
    build_timm,
    exported,
    prepare_mindspore,
    prepare_plain,
    prepare_row,
    prepare_timm,
    start_mindspore,
    start_torch,
)

WARM_UP = 5  # calls that are not timed
TRAINING_RATE = 0.01


def images(options):
    """Random input (N, 3, H, W), the same in every process."""
    size = options["image_size"]
    generator = np.random.default_rng(SEED)
    return generator.standard_normal((options["batch"], 3, size, size)).astype(np.float32)


# ---- inference: functions that give the logits


def first(outputs):
    """The output, or the first of several."""
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


def infer_mindspore(options):
    start_mindspore(options)
    from mindspore import Tensor

    network, x = build_mindspore(options), Tensor(images(options))
    return lambda: first(network(x)).asnumpy()


def infer_mindir(options):
    mindspore = start_mindspore(options)
    cell = mindspore.nn.GraphCell(mindspore.load(exported(options, "mindir")))
    x = mindspore.Tensor(images(options))
    return lambda: first(cell(x)).asnumpy()


def infer_onnx(options, ending="onnx"):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    if options["threads"]:
        settings.intra_op_num_threads = options["threads"]
    session = onnxruntime.InferenceSession(exported(options, ending), settings, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images(options)}
    return lambda: session.run(None, feed)[0]


def infer_onnx_int8(options):
    return infer_onnx(options, "int8.onnx")


def infer_litert(options, ending="tflite"):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(exported(options, ending), num_threads=options["threads"] or os.cpu_count())
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    signature = interpreter.get_signature_list()["serving_default"]  # the outputs' own order is another one
    output = interpreter.get_signature_runner().get_output_details()[signature["outputs"][0]]["index"]
    x = np.ascontiguousarray(images(options).transpose(0, 2, 3, 1))  # (N, C, H, W) -> (N, H, W, C)

    def run():
        interpreter.set_tensor(image, x)
        interpreter.invoke()
        values = interpreter.get_tensor(output)
        return values.transpose(0, 3, 1, 2) if values.ndim == 4 else values  # maps (N, H, W, C) -> (N, C, H, W)

    return run


def infer_litert_float16(options):
    return infer_litert(options, "float16.tflite")


def infer_litert_int8(options):
    return infer_litert(options, "int8.tflite")


def infer_timm_onnx(options):
    return infer_onnx(options, "timm.onnx")


def infer_plain_onnx(options):
    return infer_onnx(options, "plain.onnx")


def infer_plain_dynamo_onnx(options):
    return infer_onnx(options, "plain_dynamo.onnx")


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
    step = TrainStep(loss, network, optimizer, 0.0, 1, "none", 1.0, 0.0, Ranks(), seed=0).set_train()
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
    "prepare": {"mindspore": prepare_mindspore, "plain": prepare_plain, "timm": prepare_timm, "row": prepare_row},
    "infer": {
        "mindspore": infer_mindspore,
        "mindir": infer_mindir,
        "onnx": infer_onnx,
        "onnx_int8": infer_onnx_int8,
        "litert": infer_litert,
        "litert_float16": infer_litert_float16,
        "litert_int8": infer_litert_int8,
        "timm": infer_timm,
        "timm_compiled": infer_timm_compiled,
        "timm_onnx": infer_timm_onnx,
        "plain_onnx": infer_plain_onnx,
        "plain_dynamo_onnx": infer_plain_dynamo_onnx,
        "openvino": infer_openvino,
    },
    "train": {"mindspore": train_mindspore, "timm": train_timm},
}


def peak_memory() -> float:
    """The most memory that this process has had, in MB; nan where the system does not tell. Linux does.

    `resource.getrusage` would count the process that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else ()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), math.nan)


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
    until_answer = time.time() - options["started"]
    for _ in range(WARM_UP - 1):
        run()
    seconds = []
    for _ in range(options["runs"]):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    result = {"seconds": seconds, "until_answer": until_answer, "peak_mb": peak_memory()}
    print(json.dumps({**result, "output": output.ravel().astype(float).tolist()}))


if __name__ == "__main__":
    main()
