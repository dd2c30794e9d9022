"""Which module may import which: strictly down the layers of the project, without circles, and no task another."""

import ast

from helpers import PROJECT

LAYERS = (
    ("errors", "files", "interrupt", "console", "ranks", "runtime", "fields"),
    ("layers",),
    ("architecture", "dfc_attention", "ghostnetv2", "mobilenet", "mobilenetv2", "mobilenetv3", "networks", "stages"),
    ("yaml_tree", "config", "settings", "drawing"),
    ("weights", "data"),
    ("export",),
    ("inference", "training"),
    ("classification", "detection", "segmentation"),
    ("tasks", "predictors"),
    ("command_line",),
    ("train", "eval", "export.py", "scripts", "mindspore_hub_conf"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TASKS = ("classification", "detection", "segmentation")


def module_of(path):
    """Dotted name of a file of the project, such as 'src.data.images'."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources():
    """{dotted name: file} of all the project's code."""
    paths = [*(PROJECT / "src").rglob("*.py"), *PROJECT.glob("*.py"), *(PROJECT / "scripts").glob("*.py")]
    return {module_of(path): path for path in sorted(paths)}


def room(module):
    """The name in `LAYERS` that a module belongs to."""
    parts = module.split(".")
    if parts[0] == "src":
        return parts[1]
    return "export.py" if module == "export" else parts[0]


def imports(path, known):
    """The project's modules that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "src":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "src")


def graph():
    """{module: modules that it imports}, the packages' own files left out."""
    known = sources()
    return {
        name: {other for other in imports(path, known) if other not in ("src", name)}
        for name, path in known.items()
        if name != "src"
    }


def test_every_module_has_a_place():
    found = {room(module) for module in graph()}
    assert found <= set(RANK), f"no place in LAYERS: {found - set(RANK)}"
    assert set(RANK) <= found, f"nothing is called {set(RANK) - found}"


def test_imports_only_go_down():
    count = 0
    for module, imported in graph().items():
        for other in imported:
            count += 1
            assert RANK[room(other)] <= RANK[room(module)], f"{module} imports {other}"
            assert room(other) == room(module) or not {room(other), room(module)} <= set(TASKS), f"{module}: {other}"
    assert count > 100


def circle(edges):
    """A circle in {node: nodes that it points to}, as a list of nodes; None if there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        path.append(node)
        for other in sorted(edges.get(node, ())):
            found = visit(other)
            if found:
                return found
        done.add(path.pop())
        return None

    return next(filter(None, map(visit, sorted(edges))), None)


def test_no_circles_among_modules_and_rooms():
    modules = graph()
    assert circle(modules) is None
    rooms = {}
    for module, imported in modules.items():
        rooms.setdefault(room(module), set()).update(room(other) for other in imported if room(other) != room(module))
    assert circle(rooms) is None


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_only_porting_and_benchmarks_need_torch_and_timm():
    for path in sources().values():
        if path.name in (
            "port_weights.py",
            "benchmark_files.py",
            "benchmark_worker.py",
            "benchmark_pipeline.py",
            "benchmark_torch.py",
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("torch", "timm", "torchvision") for name in names), path
