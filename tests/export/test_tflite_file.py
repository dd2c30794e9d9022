"""TFLite files that are damaged."""

import pytest
from helpers import reference

from src.classification.export_graph import describe_classifier
from src.errors import UserError
from src.export.exported import open_exported, read_notes
from src.export.folding import fold_batch_norm
from src.export.tflite_file import write_tflite
from src.ghostnetv2 import create_network


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of about 1 MB."""
    reference("ai_edge_litert")
    path = tmp_path_factory.mktemp("tflite") / "whole.tflite"
    network = fold_batch_norm(create_network("ghostnetv2_1x", num_classes=2, width=0.1))
    write_tflite(describe_classifier, network, path, (3, 33, 33), 1, False, {"settings": "a: 1"}, "float32")
    assert read_notes(path) == {"settings": "a: 1"}
    return path


@pytest.mark.parametrize("length", [0, 3, 100, 200_000, -100_000, -1000])
def test_a_file_that_was_cut_is_one_line(whole, tmp_path, capfd, length):
    (tmp_path / "cut.tflite").write_bytes(whole.read_bytes()[:length])
    for read in (open_exported, read_notes):
        with pytest.raises(UserError, match=r"cut\.tflite: LiteRT cannot read it: \w"):
            read(tmp_path / "cut.tflite")
    assert capfd.readouterr().err == ""
