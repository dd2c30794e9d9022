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


def test_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(runtime, "DEVICE_FILES", {"Ascend": "/nowhere", "GPU": "/nowhere"})
    assert runtime.find_devices() == {"CPU": None}
    with pytest.raises(
        UserError, match="device_target='GPU' cannot be used: it is not on this machine.*available: CPU"
    ):
        runtime.init_runtime("GPU", seed=1, graph_mode=True)
    assert runtime.init_runtime(None, seed=1, graph_mode=True).device_target == "CPU"


@pytest.mark.parametrize("target", ["GPU", "Ascend"])
def test_a_device_whose_libraries_do_not_load(target, monkeypatch, capsys):
    """The driver's file is there, CUDA or CANN is not."""
    if any(map(os.path.exists, runtime.DEVICE_FILES.values())):
        pytest.skip("this machine has a device")
    monkeypatch.setattr(runtime, "DEVICE_FILES", {target: os.devnull})
    problem = runtime.find_devices()[target]
    assert "\n" not in problem and "cannot open shared object file" in problem or "has no library" in problem
    with pytest.raises(UserError) as error:
        runtime.choose_device(target)
    assert str(error.value) == f"device_target={target!r} cannot be used: {problem}; available: CPU"
    assert capsys.readouterr().err == ""
    assert runtime.choose_device(None) == "CPU"
    assert capsys.readouterr().err == f"warning: {target} is not used: {problem}\n"


@pytest.mark.parametrize("name", runtime.LAUNCHED)
def test_several_processes_without_msrun_are_refused(name, monkeypatch):
    monkeypatch.delenv("MS_ROLE", raising=False)
    monkeypatch.setenv(name, "1")
    runtime.check_launcher()
    monkeypatch.setenv(name, "8")
    with pytest.raises(
        UserError, match=f"{name}=8: started as one of 8 processes, but not by msrun; msrun --worker_num"
    ):
        runtime.init_runtime("CPU", seed=1, graph_mode=True)
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    runtime.check_launcher()


def test_the_number_of_the_device(monkeypatch):
    import mindspore

    calls = []
    monkeypatch.setattr(mindspore, "set_context", lambda **options: calls.append(options))
    runtime.set_device_id("Ascend", None)
    runtime.set_device_id("CPU", 0)
    with pytest.raises(UserError, match=r"runtime\.device_id: 3: there is one CPU, 0"):
        runtime.set_device_id("CPU", 3)
    runtime.set_device_id("Ascend", 3)
    assert calls == [{"device_id": 0}, {"device_id": 3}]
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    with pytest.raises(UserError, match="msrun gives each process its device"):
        runtime.set_device_id("Ascend", 3)


@pytest.mark.parametrize("reduced", [False, True])
def test_the_options_of_a_device(reduced, monkeypatch):
    import mindspore

    calls = []
    monkeypatch.setattr(mindspore, "set_context", lambda **options: calls.append(options))
    runtime.set_device_options("CPU", None, reduced)
    assert calls == []
    runtime.set_device_options("Ascend", None, reduced)
    hf32 = {"conv_allow_hf32": reduced, "matmul_allow_hf32": False}
    assert calls == [{"jit_config": {"jit_level": "O0"}}, {"ascend_config": hf32}]
    runtime.set_device_options("GPU", "O1", reduced)
    tf32 = {"conv_allow_tf32": reduced, "matmul_allow_tf32": False}
    assert calls[2:] == [{"jit_config": {"jit_level": "O1"}}, {"gpu_config": tf32}]
