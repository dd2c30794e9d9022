"""What scripts/benchmark.py can measure, and its figures as Markdown tables."""

REFERENCES = ("timm", "mindspore")  # the time of the first that is there, over another's, is the ratio

RUNTIMES = (
    # key, worker's name, batch is open, packages it needs, label
    ("mindspore", "mindspore", False, ("mindspore",), "MindSpore, graph mode"),
    ("mindir", "mindir", False, ("mindspore",), "MindSpore, MINDIR (folded)"),
    ("onnx", "onnx", False, ("onnx", "onnxruntime"), "ONNX Runtime, this project's file"),
    ("onnx_any", "onnx", True, ("onnx", "onnxruntime"), "ONNX Runtime, this project's, any batch"),
    ("onnx_int8", "onnx_int8", False, ("onnx", "onnxruntime"), "ONNX Runtime, this project's, int8"),
    ("litert", "litert", False, ("ai_edge_litert",), "LiteRT, this project's TFLite file"),
    ("litert_float16", "litert_float16", False, ("ai_edge_litert",), "LiteRT, this project's, float16"),
    ("litert_int8", "litert_int8", False, ("ai_edge_litert", "ai_edge_quantizer"), "LiteRT, this project's, int8"),
    ("timm", "timm", False, ("timm",), "PyTorch, timm, eager"),
    ("timm_compiled", "timm_compiled", False, ("timm",), "PyTorch, timm, torch.compile"),
    ("timm_onnx", "timm_onnx", False, ("timm", "onnxruntime"), "ONNX Runtime, timm's file"),
    ("timm_onnx_any", "timm_onnx", True, ("timm", "onnxruntime"), "ONNX Runtime, timm's, any batch"),
    ("plain_onnx", "plain_onnx", False, ("timm", "onnxruntime"), "ONNX Runtime, PyTorch's file"),
    (
        "plain_dynamo_onnx",
        "plain_dynamo_onnx",
        False,
        ("timm", "onnxruntime", "onnxscript"),
        "ONNX Runtime, PyTorch's, dynamo",
    ),
    ("openvino", "openvino", False, ("timm", "openvino"), "OpenVINO, timm's file"),
)
PLAIN = ("plain_onnx", "plain_dynamo_onnx")  # files of PyTorch's own exporters, for the other tasks what timm's are
FILES = {
    "mindspore": "safetensors",
    "timm": "safetensors",
    "timm_compiled": "safetensors",
    "mindir": "{batch}.mindir",
    "onnx": "{batch}.onnx",
    "onnx_any": "any.onnx",
    "onnx_int8": "{batch}.int8.onnx",
    "litert": "{batch}.tflite",
    "litert_float16": "{batch}.float16.tflite",
    "litert_int8": "{batch}.int8.tflite",
    "timm_onnx": "{batch}.timm.onnx",
    "timm_onnx_any": "any.timm.onnx",
    "plain_onnx": "{batch}.plain.onnx",
    "plain_dynamo_onnx": "{batch}.plain_dynamo.onnx",
    "openvino": "{batch}.timm.onnx",
}
FILE_PAIRS = (  # ratios that are this project's aim
    ("onnx", "timm_onnx"),
    ("onnx_any", "timm_onnx_any"),
    ("onnx", "plain_onnx"),
    ("onnx", "plain_dynamo_onnx"),
    ("onnx", "openvino"),
    ("onnx_int8", "onnx"),
)
PIPELINES = (
    ("train:threads", ("mindspore",), "training, this project, threads"),
    ("train:processes", ("mindspore",), "training, this project, processes"),
    ("train:timm", ("timm",), "training, timm"),
    ("val:threads", ("mindspore",), "evaluation, this project, threads"),
    ("val:processes", ("mindspore",), "evaluation, this project, processes"),
    ("val:mindspore", ("mindspore",), "evaluation, this project, MindSpore's resize"),
    ("val:timm", ("timm",), "evaluation, timm"),
)


def ratio(rows, key, reference, batch):
    """How many times as fast as the reference; None where one is not there."""
    times = [rows.get(name, {}).get(batch, {}).get("ms") for name in (reference, key)]
    return times[0] / times[1] if all(times) else None


def show_network(result, arguments, kind):
    """Lines of a Markdown table."""
    rows, batches = result["rows"], arguments.batch_sizes
    reference = next((key for key in REFERENCES if key in rows), next(iter(rows)))
    labels = {row[0]: row[4] for row in RUNTIMES}
    size = arguments.image_size
    yield (
        f"**{result['network']}**: {result['parameters']:,} parameters, {result['multiply_adds'] / 1e6:.1f} M "
        f"multiply-adds at {size}x{size}. {'Training step' if kind == 'train' else 'Inference'}, "
        f"{arguments.threads or 'default'} threads; ratio to {labels[reference]}, above 1 is faster.\n"
    )
    heads = [f"batch {batch}: ms | quartiles | images/s | ratio" for batch in batches]
    yield "| runtime | file, MB | " + " | ".join(heads) + (" | difference |" if kind == "infer" else " |")
    yield "| --- | --- |" + " --- | --- | --- | --- |" * len(batches) + (" --- |" if kind == "infer" else "")
    for key, figures in rows.items():
        cells = [labels[key], f"{figures[batches[0]]['file_mb']:.1f}"]
        for batch in batches:
            cells += _cells(figures[batch], batch, ratio(rows, key, reference, batch))
        if kind == "infer":
            worst = [figures[batch]["difference"] for batch in batches if figures[batch]["difference"] is not None]
            cells.append(f"{max(worst):.0e}" if worst and key != next(iter(rows)) else "")
        yield "| " + " | ".join(cells) + " |"
    yield from show_start(rows, batches[0], labels)
    for ours, theirs in FILE_PAIRS if kind == "infer" else ():
        ratios = {batch: ratio(rows, ours, theirs, batch) for batch in batches}
        if all(ratios.values()):
            text = ", ".join(f"{value:.2f} at batch {batch}" for batch, value in ratios.items())
            yield f"\n{labels[ours]}, ratio to {labels[theirs]}: {text}."


def show_start(rows, batch, labels):
    """Lines of a Markdown table of what a process costs besides its calls, at one batch."""
    costs = {labels[key]: figures[batch] for key, figures in rows.items() if "until_answer" in figures[batch]}
    if costs:
        yield "\n| runtime | start of the process to first answer, s | peak memory, MB |\n| --- | --- | --- |"
    for label, cost in costs.items():
        yield f"| {label} | {cost['until_answer']:.2f} | {cost['peak_mb']:.0f} |"


def _cells(figures, batch, speed):
    if "failed" in figures:
        return [figures["failed"].replace("|", "/"), "", "", ""]
    return [
        f"{figures['ms']:.2f}",
        f"{figures['low']:.2f} to {figures['high']:.2f}",
        f"{1000 * batch / figures['ms']:.0f}",
        "" if speed is None else f"{speed:.2f}",
    ]


def show_pipelines(rows, arguments):
    """Lines of a Markdown table."""
    yield f"Input pipelines, {arguments.workers} workers, batches of {arguments.batch_sizes[0]}; ratio to timm's.\n"
    yield "| pipeline | images/s | range | ratio |\n| --- | --- | --- | --- |"
    for name, _, label in PIPELINES:
        row = rows.get(name)
        if row is None:
            continue
        if "failed" in row:
            yield f"| {label} | {row['failed'].replace('|', '/')} | | |"
            continue
        speeds, base = row["images_per_second"], rows.get(f"{name.split(':')[0]}:timm", {}).get("median")
        speed = f"{row['median'] / base:.2f}" if base else ""
        yield f"| {label} | {row['median']:.0f} | {speeds[0]:.0f} to {speeds[-1]:.0f} | {speed} |"
