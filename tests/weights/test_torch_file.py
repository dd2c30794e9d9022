"""Where training scripts keep weights in a PyTorch file, and files that claim more than they hold."""

import pickle
import struct
import zipfile

import numpy as np
import pytest
from helpers import normal, reference

from src.errors import UserError
from src.weights import read_weights
from src.weights.torch_file import read_torch_file
from src.weights.unpickler import UnreadableFileError

AVERAGED, PLAIN = normal(2, 3, seed=1), normal(2, 3, seed=2)


MEAN = "bn.running_mean"  # by which PyTorch's names are known


def of(array):
    torch = reference("torch")
    return {"conv.weight": torch.from_numpy(array), MEAN: torch.zeros(2)}


def prefixed(prefix, array):
    return {prefix + name: value for name, value in of(array).items()}


def single(value):
    return reference("torch").tensor(value)


FILES = {  # content, section with --weights ema, section with --weights raw
    "timm": (
        lambda: {"epoch": 3, "state_dict": of(PLAIN), "state_dict_ema": of(AVERAGED), "optimizer": {"state": {}}},
        "state_dict_ema (--weights raw takes its state_dict)",
        "state_dict (--weights ema takes its state_dict_ema)",
    ),
    "averages that were never begun": (
        lambda: {"state_dict_ema": {}, "state_dict": of(PLAIN)},
        "state_dict (state_dict_ema holds no arrays)",
        "state_dict",
    ),
    "no plain weights": (
        lambda: {"state_dict": {}, "state_dict_ema": of(AVERAGED)},
        "state_dict_ema",
        "state_dict_ema (state_dict holds no arrays)",
    ),
    "settings of an average": (
        lambda: {"ema": {"decay": 0.9, "updates": single(7)}, "model": of(PLAIN)},
        "model (ema holds no arrays)",
        "model",
    ),
    "YOLO": (
        lambda: {"epoch": 3, "model": of(PLAIN), "ema": {"module": of(AVERAGED), "updates": single(7)}},
        "ema.module (--weights raw takes its model)",
        "model (--weights ema takes its ema.module)",
    ),
    "torchvision": (
        lambda: {"model": of(PLAIN), "model_ema": {"n_averaged": single(7), **prefixed("module.", AVERAGED)}},
        "model_ema (--weights raw takes its model)",
        "model (--weights ema takes its model_ema)",
    ),
    "MMEngine": (
        lambda: {"meta": {}, "state_dict": of(PLAIN), "ema_state_dict": {"steps": single(1), **of(AVERAGED)}},
        "ema_state_dict (--weights raw takes its state_dict)",
        "state_dict (--weights ema takes its ema_state_dict)",
    ),
    "a state dict in a model": (lambda: {"model": {"state_dict": of(PLAIN)}}, "model.state_dict", "model.state_dict"),
    "Lightning": (
        lambda: {"state_dict": prefixed("model.", PLAIN), "loops": {}},
        "state_dict",
        "state_dict",
    ),
    "PyTorch's tutorial": (
        lambda: {"model_state_dict": of(PLAIN), "loss": 0.4},
        "model_state_dict",
        "model_state_dict",
    ),
    "DeepSpeed": (lambda: {"module": of(PLAIN), "mp_world_size": 1}, "module", "module"),
    "Detectron2": (lambda: {"model": {"conv.weight": PLAIN, MEAN: PLAIN[0]}, "__author__": "them"}, "model", "model"),
    "flat": (lambda: of(PLAIN), "", ""),
    "arrays beside the weights": (
        lambda: {"state_dict": of(PLAIN), "losses": single([1.0, 2.0]), "class_names": np.array(["a"])},
        "state_dict",
        "state_dict",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_the_first_section_with_arrays_is_taken(tmp_path, name):
    build, averaged, plain = FILES[name]
    reference("torch").save(build(), tmp_path / "a.pth")
    for prefer, section in (("ema", averaged), ("raw", plain)):
        file = read_weights(tmp_path / "a.pth", prefer)
        assert file.section == section
        expected = AVERAGED if section.startswith(("state_dict_ema", "ema", "model_ema")) else PLAIN
        assert file.weights.keys() == {"conv.weight", MEAN} and np.array_equal(file.weights["conv.weight"], expected)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [1], {"lr": 0.1}], ids=["{}", "empty", "list", "number"])
def test_files_without_weights(tmp_path, content):
    reference("torch").save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: holds no weights"):
        read_weights(tmp_path / "a.pth")


def test_a_file_that_holds_itself(tmp_path):
    content = {"weight": normal(2, 3)}
    content["model"] = content["ema"] = content
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert read_weights(tmp_path / "a.pkl").weights.keys() == {"weight"}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_repeats_a_number_takes_no_memory(tmp_path, legacy):
    """Of 40 GB by its size, of 4 bytes in the file."""
    torch = reference("torch")
    tensors = {"large": torch.zeros(1).expand(10**10), "weight": torch.ones(2, 1).expand(2, 3)}
    torch.save(tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    arrays = read_weights(tmp_path / "a.pth").weights
    assert arrays["large"].shape == (10**10,) and arrays["large"].strides == (0,)
    assert np.array_equal(arrays["weight"], np.ones((2, 3)))


def rewrite(path, change, compression=zipfile.ZIP_DEFLATED):
    """Write the entries of a PyTorch archive anew, as `change` {name: bytes} leaves them."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**entries, **change}.items():
            archive.writestr(name, content)


def test_a_compressed_archive_is_read(tmp_path):
    torch = reference("torch")
    torch.save(of(PLAIN), tmp_path / "a.pth")
    rewrite(tmp_path / "a.pth", {})
    assert np.array_equal(torch.load(tmp_path / "a.pth", weights_only=True)["conv.weight"], PLAIN)
    assert np.array_equal(read_weights(tmp_path / "a.pth").weights["conv.weight"], PLAIN)


@pytest.mark.parametrize("entry", ["a/data/0", "a/data.pkl", "a/other"])
def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path, entry):
    reference("torch").save(of(PLAIN), tmp_path / "a.pth")
    rewrite(tmp_path / "a.pth", {entry: bytes(10**7)})
    with pytest.raises(UnreadableFileError, match=r"its \d+ bytes unpack to 1\d{7}, which is refused"):
        read_torch_file(tmp_path / "a.pth")


def test_an_archive_that_lies_about_its_sizes_is_refused(tmp_path):
    """No more is unpacked than its list says."""
    reference("torch").save(of(PLAIN), tmp_path / "a.pth")
    rewrite(tmp_path / "a.pth", {"a/data/0": bytes(10**7)})
    content = (tmp_path / "a.pth").read_bytes()
    size = struct.pack("<I", 10**7)
    assert content.count(size) == 2
    (tmp_path / "a.pth").write_bytes(content.replace(size, struct.pack("<I", 24)))
    with pytest.raises(UnreadableFileError, match="Bad CRC-32"):
        read_torch_file(tmp_path / "a.pth")


def test_an_older_file_that_claims_more_than_it_has_is_refused(tmp_path):
    torch = reference("torch")
    torch.save({"weight": torch.from_numpy(PLAIN)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes()
    for count in (7, 2**40, 2**63):
        assert content.endswith(struct.pack("<q", 6) + PLAIN.tobytes())
        (tmp_path / "b.pth").write_bytes(content[:-32] + struct.pack("<Q", count) + PLAIN.tobytes())
        with pytest.raises(UnreadableFileError, match="it is cut off"):
            read_torch_file(tmp_path / "b.pth")


def test_other_archives_are_named(tmp_path):
    torch = reference("torch")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    np.savez(tmp_path / "arrays.npz", weight=PLAIN)
    for name, message in (
        ("script.pt", "it is a TorchScript program"),
        ("arrays.npz", "the archive holds no data.pkl"),
    ):
        with pytest.raises(UserError, match=f"{name}: is not a whole PyTorch checkpoint: {message}"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("prefix", ["model.module._orig_mod.", "_orig_mod.module.", "module."])
def test_names_lose_what_wrappers_add_to_all(tmp_path, prefix):
    reference("torch").save(prefixed(prefix, PLAIN), tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").weights.keys() == {"conv.weight", MEAN}
