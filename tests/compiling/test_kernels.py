"""What the compiled steps consist of, on every device: no callback to Python, nothing in float64, not too many kernels.

GPU and Ascend are compiled for without the device, where the stand-ins for their libraries are there; see `kernels`.
"""

import mindspore
import pytest
from compiling.kernels import HOST_CALLBACK, STUBS, TARGETS, compile_case

TASKS = ("classification", "detection", "segmentation")
DEVICES = ("gpu", "ascend")
MAX_KERNELS = {  # of a step of the ImageNet recipe, all blocks, on Ascend
    ("optimizer.clip_norm=1.0", "train.accumulation_steps=2"): 5000,
    ("precision.loss_scaling=none",): 3000,
}


def compile_for(device, case, *settings, full=False):
    """Compile a case, and check what holds for all."""
    if device != "cpu" and not (STUBS.is_file() and mindspore.__version__.startswith("2.10.")):
        pytest.skip(f"{STUBS} or MindSpore 2.10 is not there")
    compiled = compile_case(device, case, *settings, full=full)
    assert compiled.count() > 100
    assert compiled.count(device=TARGETS[device]) == compiled.count()  # none has fallen back to the CPU
    assert compiled.count(primitive=HOST_CALLBACK) == 0
    assert not [key for key in compiled.kernels if "Float64" in key[2]]
    return compiled


def test_a_training_step_on_cpu():
    """With all that a step can have; mixed precision is for devices."""
    compile_for(
        "cpu", "classification", "precision.amp=O0", "precision.loss_scaling=dynamic", "optimizer.clip_norm=1.0"
    )


@pytest.mark.parametrize("device", DEVICES)
def test_an_evaluation_network(device):
    compile_for(device, "classification-eval")


@pytest.mark.slow
@pytest.mark.parametrize("settings", MAX_KERNELS)
def test_the_number_of_kernels_of_the_imagenet_recipe(settings):
    assert compile_for("ascend", "classification", *settings, full=True).count() <= MAX_KERNELS[settings]


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O0", "O2", "O3", "auto"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("device", DEVICES)
def test_training_steps(device, task, level):
    compile_for(device, task, f"precision.amp={level}")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_bfloat16_on_ascend(task):
    compile_for("ascend", task, "precision.amp=bf16")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("device", DEVICES)
def test_evaluation_networks(device, task):
    compile_for(device, f"{task}-eval")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("device", DEVICES)
def test_optimizers(device, optimizer):
    compile_for(device, "classification", f"optimizer.name={optimizer}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", ["up_sampling=bilinear", "up_sampling=bicubic", "down_sampling=max_pool", "gate=none"]
)
@pytest.mark.parametrize("device", DEVICES)
def test_options_of_dfc_attention(device, option):
    compile_for(device, "classification", f"network.dfc_{option}")


@pytest.mark.slow
def test_one_of_two_processes_on_ascend():
    """GPU wants mpirun and a second process for that."""
    compile_for("ascend", "classification", "train.sync_bn=true")
