"""Which module may import which: the layers of the project."""

import ast

from conftest import PROJECT

LAYERS = (
    ("errors", "compile_cache"),
    (
        "runtime",
        "dropout",
        "ghostnetv2",
        "config",
        "drawing",
        "images",
        "photometric",
        "samples",
        "pipeline",
        "complexity",
        "torch_file",
        "sync_batch_norm",
        "precision",
    ),
    ("checkpoint", "porting", "folding", "inference", "onnx_builder", "onnx_graph", "deploy", "optim", "train_step"),
    ("command_line", "run_folder", "training_state"),
    ("callbacks", "training"),
    ("classification", "detection", "segmentation"),
    ("tasks",),
    ("train", "eval", "export", "scripts"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TASK_RANK = RANK["classification"]


def imports(path):
    """Names of the project's modules that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "src":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names if alias.name in RANK]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("src."))


def modules():
    """(module or task folder, file) of all the project's code."""
    for path in sorted((PROJECT / "src").rglob("*.py")):
        parts = path.relative_to(PROJECT / "src").with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path
    for path in [*PROJECT.glob("*.py"), *(PROJECT / "scripts").glob("*.py")]:
        yield ("scripts" if path.parent.name == "scripts" else path.stem), path


def test_imports_only_go_down():
    found = 0
    for name, path in modules():
        assert name in RANK, f"{path} has no place in LAYERS"
        for imported in imports(path):
            found += 1
            assert RANK[imported] <= RANK[name], f"{path} imports {imported}"
            if RANK[name] == TASK_RANK == RANK[imported]:
                assert imported == name, f"{path} imports the task {imported}"
    assert found > 50


def test_only_porting_and_benchmarks_need_torch_and_timm():
    for _, path in modules():
        if path.name in ("port_weights.py", "benchmark_worker.py", "benchmark_pipeline.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("torch", "timm", "torchvision") for name in names), path
