"""Environment, device and kernel selection."""

import os
import subprocess
import sys

import pytest
from helpers import PROJECT

from src import runtime
from src.errors import UserError

CONVOLUTION = """
{imports}
import numpy
cell = nn.Conv2d(72, 72, 3, pad_mode="pad", padding=1)
cell(mindspore.Tensor(numpy.ones((1, 72, 56, 56), numpy.float32))).asnumpy()
"""


@pytest.mark.parametrize(
    "imports",
    [
        "from src import ghostnetv2\nimport mindspore\nfrom mindspore import nn",
        "import mindspore\nfrom mindspore import nn\nimport src.tasks",
    ],
    ids=["project first", "mindspore first"],
)
def test_convolution_does_not_run_on_the_reference_kernel(imports):
    environment = {name: value for name, value in os.environ.items() if name != runtime.ONEDNN_ISA}
    environment.update(ONEDNN_VERBOSE="1", DNNL_VERBOSE="1")
    output = subprocess.run(
        [sys.executable, "-c", CONVOLUTION.format(imports=imports)],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kernels = [line for line in output.splitlines() if ",exec," in line and ",convolution," in line]
    assert kernels, output
    assert not any("ref:any" in line or ",ref," in line for line in kernels), kernels


@pytest.fixture
def affected(monkeypatch):
    """A machine and a MindSpore that need the remedy."""
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)
    monkeypatch.setattr(runtime, "bundled_onednn_version", lambda: runtime.FIRST_AFFECTED_ONEDNN)
    monkeypatch.setenv(runtime.ONEDNN_ISA, "x")
    monkeypatch.delenv(runtime.ONEDNN_ISA)


def test_kernels_are_capped_where_it_helps(affected):
    runtime.select_cpu_kernels()
    assert os.environ[runtime.ONEDNN_ISA] == "AVX2"


def test_kernels_are_the_users_choice(affected, monkeypatch):
    monkeypatch.setenv(runtime.ONEDNN_ISA, "ALL")
    runtime.select_cpu_kernels()
    assert os.environ[runtime.ONEDNN_ISA] == "ALL"


@pytest.mark.parametrize(
    ("name", "value"), [("has_avx512", lambda: False), ("bundled_onednn_version", lambda: 2)], ids=["AVX2", "oneDNN 2"]
)
def test_kernels_are_left_alone_where_it_does_not_help(affected, monkeypatch, name, value):
    monkeypatch.setattr(runtime, name, value)
    runtime.select_cpu_kernels()
    assert runtime.ONEDNN_ISA not in os.environ


@pytest.mark.parametrize("is_there", [False, True], ids=["CPU only", "another device"])
def test_the_environment_caps_kernels_of_a_machine_with_the_cpu_only(affected, monkeypatch, tmp_path, is_there):
    monkeypatch.setattr(runtime, "DEVICE_FILES", {"GPU": str(tmp_path if is_there else tmp_path / "missing")})
    runtime.prepare_environment()
    assert (runtime.ONEDNN_ISA in os.environ) == (not is_there)


def test_processor_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    file = tmp_path / "cpuinfo"
    file.write_text("model name : x\nflags : fpu avx2 avx512f avx512bw\n")
    assert runtime.has_avx512(file)
    file.write_text("model name : avx512f\nflags : fpu avx2\n")
    assert not runtime.has_avx512(file)
    assert not runtime.has_avx512(tmp_path / "missing")
    monkeypatch.setattr(runtime.platform, "machine", lambda: "aarch64")
    file.write_text("flags : avx512f\n")
    assert not runtime.has_avx512(file)


def test_device_that_is_not_there():
    missing = [target for target in runtime.DEVICE_TARGETS if target not in runtime.available_device_targets()]
    if not missing:
        pytest.skip("this machine has every device")
    with pytest.raises(UserError, match=f"device_target='{missing[0]}' is not on this machine.*available: .*CPU"):
        runtime.init_runtime(missing[0], seed=1, graph_mode=True)


def test_default_is_the_best_device():
    assert runtime.init_runtime(None, seed=1, graph_mode=True).device_target == runtime.available_device_targets()[0]
