"""What the compiled steps consist of, on every device: reviewed kernels, no callback to Python, nothing in float64.

GPU and Ascend are compiled for without the device, where the stand-ins for their libraries are there; see `kernels`.
The reviewed kernels are those of MindSpore 2.10; on another version one step is compiled for the CPU, and not compared.
"""

import mindspore
import pytest
from compiling import review
from compiling.kernels import HOST_CALLBACK, STUBS, TARGETS, Compiled, compile_case, compile_cases, shorten_types

IS_LISTED = mindspore.__version__.startswith("2.10.")
MAX_KERNELS = {  # of a step of the ImageNet recipe, all blocks, on Ascend
    review.WHOLE_STEP: 5000,
    ("classification", "precision.loss_scaling=none"): 3000,
}
SLOW_CASES = [(device, case) for device, target in TARGETS.items() for case in review.reviewed_cases(target)]


def require(device):
    if not IS_LISTED:
        pytest.skip(f"the reviewed kernels are those of MindSpore 2.10, this is {mindspore.__version__}")
    if device != "cpu" and not STUBS.is_file():
        pytest.skip(f"{STUBS} is not there")


def faults(device, case, compiled: Compiled) -> list:
    """Say in a line each what is wrong with a compiled case."""
    target = TARGETS[device]
    found = [f"a kernel falls back: {key}" for key in compiled.kernels if key[0] != target]
    found += [f"Float64: {key}" for key in compiled.kernels if "Float64" in key[2]]
    if compiled.count(primitive=HOST_CALLBACK):
        found.append("the step calls Python back")
    if compiled.count() <= 100:
        found.append(f"MindSpore's dump has only {compiled.count()} kernels")
    if IS_LISTED:
        found += review.report_new(target, case, review.describe(compiled.kernels, target))
    return [f"{' '.join(case)} for {target}: {fault}" for fault in found]


@pytest.mark.long
@pytest.mark.parametrize("device", TARGETS)
def test_reviewed_kernels(device):
    if IS_LISTED or device != "cpu":
        require(device)
    cases = review.quick_cases(TARGETS[device]) if IS_LISTED else [review.WHOLE_STEP]
    found = [
        fault for case, compiled in zip(cases, compile_cases(device, cases)) for fault in faults(device, case, compiled)
    ]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "case"), SLOW_CASES, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_reviewed_kernels_of_all_cases(device, case):
    require(device)
    found = faults(device, case, compile_case(device, *case))
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("case", MAX_KERNELS, ids=" ".join)
def test_the_number_of_kernels_of_the_imagenet_recipe(case):
    require("ascend")
    compiled = compile_case("ascend", *case, full=True)
    found = faults("ascend", case, compiled)
    assert not found, "\n".join(found)
    assert compiled.count() <= MAX_KERNELS[case]


def test_the_list_is_in_its_form():
    text = review.LIST.read_text()
    assert text == review.format_list(review.read_list())
    assert "Float64" not in text and HOST_CALLBACK not in text


def test_types_have_no_lengths():
    text = "<Tensor[Float32]> <Ref[Tensor[Float32]]> <Tuple[Int64*4]> <Tuple[]> <Bool> -> <Tensor[Float16]>"
    assert shorten_types(text) == "Float32* [Int64] [] <Bool> -> Float16"
    assert shorten_types("<Int64> <Int64> <Int64> <Tensor[Int64]>") == "<Int64>* Int64"


def test_what_is_new_is_said_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(review, "LIST", tmp_path / "reviewed.txt")
    review.update_list("CPU", {"Add: Float32* -> Float32", "Xyz: Float16 -> Float16"}, complete=True)
    review.update_list("GPU", {"Add: Float32* -> Float32"}, complete=False)
    assert review.LIST.read_text() == review.HEADER + (
        "CPU GPU -       Add: Float32* -> Float32\nCPU -   -       Xyz: Float16 -> Float16\n"
    )
    assert not review.report_new("GPU", ("detection-eval",), {"Add: Float32* -> Float32"})
    (line,) = review.report_new("GPU", ("detection", "precision.amp=O2"), {"Xyz: Float16 -> Float16"})
    cpu, gpu, ascend = (
        f"`python tests/compiling/kernels.py {device} detection precision.amp=O2 --update`" for device in TARGETS
    )
    assert line == (
        f"Xyz: Float16 -> Float16 is new on GPU: see whether the other devices have it with {cpu} and {ascend}, "
        f"and add it to tests/compiling/reviewed.txt with {gpu}"
    )
    review.update_list("CPU", {"Add: Float32* -> Float32"}, complete=True)
    assert review.read_list() == {"Add: Float32* -> Float32": {"CPU", "GPU"}}
