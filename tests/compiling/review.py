"""The reviewed list of kernels, `reviewed.txt`: which cases it comes from, how it is read, compared and written."""

from pathlib import Path

LIST = Path(__file__).with_name("reviewed.txt")
DEVICES = ("CPU", "GPU", "Ascend")
HEADER = """\
# Kernels of the compiled training steps and evaluation networks: the devices for which MindSpore 2.10 has each,
# and its types. On GPU and Ascend they were compiled against stand-ins for the libraries, see kernels.py. The passes of
# a device fuse and replace kernels, so that many a line holds for one device alone. [Type] is that of a tuple, <Type>
# that of a number; * stands for repetitions.
# `python tests/compiling/kernels.py DEVICE CASE --update` adds what is new, and with `all` for CASE also takes out what
# is gone. Read the difference before it is committed: is each new line meant, and has each device what it needs?
"""
TASKS = ("classification", "detection", "segmentation")
LEVELS = ("O0", "O2", "O3", "auto")
WHOLE_STEP = ("classification", "optimizer.clip_norm=1.0", "train.accumulation_steps=2")  # O2, all a step can have
OTHER_SETTINGS = (
    "optimizer.name=adamw",
    "optimizer.name=sgd",
    "network.dfc_up_sampling=bilinear",
    "network.dfc_up_sampling=bicubic",
    "network.dfc_down_sampling=max_pool",
    "network.dfc_gate=none",
)
FINE_TUNING = (  # with a teacher of random weights
    *("classification", "train.freeze=stem", "optimizer.layer_decay=0.8", "network.drop_path=0.2"),
    *("augment.mixup=0.2", "loss.name=binary_cross_entropy", "loss.teacher=any"),
)


def reviewed_cases(device) -> list:
    """List the cases of a device ('CPU', 'GPU' or 'Ascend'), each a name and settings."""
    cases = [(f"{task}-eval",) for task in TASKS]
    cases += [(task, f"precision.amp={level}") for level in LEVELS for task in TASKS]
    cases += [WHOLE_STEP, FINE_TUNING, *(("classification", setting) for setting in OTHER_SETTINGS)]
    if device == "Ascend":  # the CPU has no convolution in bfloat16; GPU wants mpirun and a second process for two
        cases += [(task, "precision.amp=bf16") for task in TASKS]
        cases.append(("classification", "train.sync_bn=true"))
    return cases


def quick_cases(device) -> list:
    """List those of the cases that every run of the tests compiles."""
    if device == "CPU":
        steps = [(task, "precision.amp=O2") for task in TASKS[1:]]
        return [*steps, WHOLE_STEP, ("classification", "precision.amp=O0"), *((f"{task}-eval",) for task in TASKS)]
    return [("classification", "precision.amp=O2"), ("classification-eval",), FINE_TUNING]


def describe(kernels, device) -> set:
    """Give the lines of the list for a device's kernels.

    Args:
        kernels: (device, primitive, types) of each.
        device: 'CPU', 'GPU' or 'Ascend'; kernels that fell to another one are left out.
    """
    return {f"{primitive}: {types}" for found_on, primitive, types in kernels if found_on == device}


def read_list() -> dict:
    """Read {kernel: set of devices}; nothing where there is no list yet."""
    lines = LIST.read_text().splitlines() if LIST.is_file() else []
    width = len(" ".join(DEVICES))
    return {line[width:].strip(): set(line[:width].split()) - {"-"} for line in lines if not line.startswith("#")}


def format_list(reviewed) -> str:
    """Put {kernel: set of devices} into the list's form: a line each, devices first, sorted by kernel."""
    columns = (
        (" ".join((name if name in devices else "-").ljust(len(name)) for name in DEVICES), kernel)
        for kernel, devices in sorted(reviewed.items())
    )
    return HEADER + "".join(f"{devices}  {kernel}\n" for devices, kernel in columns)


def update_list(device, seen, complete) -> None:
    """Add the kernels that were seen for a device to the list; those are all of them where `complete`."""
    from src.files import atomic_path

    reviewed = read_list()
    if complete:
        reviewed = {kernel: devices - {device} for kernel, devices in reviewed.items()}
    for kernel in seen:
        reviewed.setdefault(kernel, set()).add(device)
    with atomic_path(LIST) as temporary:
        temporary.write_text(format_list({kernel: devices for kernel, devices in reviewed.items() if devices}))


def report_new(device, case, seen) -> list:
    """Say in a line each which kernels of a case the list does not have for a device, and what to do."""
    reviewed = read_list()
    command = "`python tests/compiling/kernels.py {} " + " ".join(case) + " --update`"
    others = " and ".join(command.format(name.lower()) for name in DEVICES if name != device)
    return [
        f"{kernel} is new on {device}: see whether the other devices have it with {others}, "
        f"and add it to tests/compiling/{LIST.name} with {command.format(device.lower())}"
        for kernel in sorted(seen)
        if device not in reviewed.get(kernel, ())
    ]
