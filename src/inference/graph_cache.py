"""Compiled graphs of evaluation, kept on disk between runs: the first batch then comes seconds earlier.

MindSpore's own cache hands out the graph of another network or input, and training graphs read back no longer train, so
each graph of evaluation has a sealed folder of its own here. What is damaged or foreign is compiled anew."""

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

import mindspore

SEAL = "seal"  # file that holds the digest of the others


class CachedNetwork:
    """A network in evaluation, a function of the text `settings` alone, whose graphs are kept in `folder`."""

    def __init__(self, network, folder, settings):
        self.network, self.folder, self.settings, self.compiled = network.set_train(False), folder, settings, set()

    def set_train(self, mode=True):
        """Do nothing: the network is in evaluation."""
        return self

    def __call__(self, *inputs):
        shapes = repr([(tensor.shape, str(tensor.dtype)) for tensor in inputs])
        if shapes not in self.compiled:
            self.compiled.add(shapes)
            self._compile(inputs, self.folder / graph_key(self.settings, shapes))
        return self.network(*inputs)

    def _compile(self, inputs, folder) -> None:
        target = folder
        try:
            if not (folder / SEAL).is_file() or (folder / SEAL).read_bytes() != seal(folder, folder.name):
                shutil.rmtree(folder, ignore_errors=True)
                self.folder.mkdir(parents=True, exist_ok=True)
                target = Path(tempfile.mkdtemp(prefix=".", dir=self.folder))
            mindspore.set_context(enable_compile_cache=True, compile_cache_path=str(target))
            self.network.compile(*inputs)
            if target != folder:  # it appears once it is whole, unless another process was faster
                (target / SEAL).write_bytes(seal(target, folder.name))
                target.rename(folder)
        except OSError:  # no place for a cache: the call compiles as without one
            shutil.rmtree(target, ignore_errors=True)
        finally:
            mindspore.set_context(enable_compile_cache=False)


def graph_key(settings: str, shapes: str) -> str:
    """Digest all that a graph depends on: MindSpore's version, the main script, source files, settings and shapes."""
    return seal(Path(__file__).parents[1], f"{mindspore.__version__} {sys.argv[0]} {settings}{shapes}", "*.py").decode()


def seal(folder, text, pattern="*") -> bytes:
    """Digest a text and the files below a folder, the seal itself not among them."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file() and path.name != SEAL)
    return hashlib.sha256(b"".join([text.encode(), *(path.read_bytes() for path in files)])).hexdigest().encode()
