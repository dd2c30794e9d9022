"""Pack predict_file.py and what it needs of this project into one file: python scripts/pack_predictor.py predictor.pyz

The file runs wherever Python 3.9 or newer, NumPy, Pillow and onnxruntime or ai-edge-litert are:
python predictor.pyz IMAGE_OR_FOLDER... --file FILE
"""

import ast
import sys
import tempfile
import zipapp
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from src.console import Parser, run
from src.files import atomic_path, refuse_existing

SCRIPT = PROJECT / "scripts" / "predict_file.py"
# `src` first: that of the archive, whatever lies beside it
START = "from src.console import run\nfrom predict_file import main\n\nrun(main)\n"


def find_modules(path, found):
    """Add to `found` the files of the project that a file imports at its top, and those that these import."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    for name in names:
        parts = name.split(".")
        packages = [PROJECT.joinpath(*parts[:length], "__init__.py") for length in range(1, len(parts) + 1)]
        for file in (PROJECT.joinpath(*parts).with_suffix(".py"), *packages):
            if parts[0] == "src" and file.is_file() and file not in found:
                found.add(file)
                find_modules(file, found)


def main():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("file", metavar="FILE", help="archive to write, such as predictor.pyz")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    arguments = parser.parse_args()
    refuse_existing(arguments.file, arguments.force)
    modules = set()
    find_modules(SCRIPT, modules)
    with tempfile.TemporaryDirectory() as folder:
        for module in modules:
            target = Path(folder) / module.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(module.read_bytes())
        (Path(folder) / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
        (Path(folder) / "__main__.py").write_text(START, encoding="utf-8")
        with atomic_path(arguments.file) as temporary:
            zipapp.create_archive(folder, temporary, "/usr/bin/env python3", compressed=True)
    size = Path(arguments.file).stat().st_size / 1e3
    print(f"packed {len(modules) + 1} modules into {arguments.file} ({size:.0f} kB)")


if __name__ == "__main__":
    run(main)
