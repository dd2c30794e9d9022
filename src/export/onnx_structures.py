"""Structures of the Ghost modules of all bottlenecks in ONNX graphs, see `src.export.onnx_backbone`.

Chosen by hand from timings of ghostnetv2_1x at 224x224 on 2 cores of an AMD EPYC with AVX-512; no command was kept.
scripts/tune_onnx.py --write rewrites this file.
"""

STRUCTURES = (  # blocks that follow one another without a shortcut convolution must agree in the second
    # first, second Ghost module
    ("doubled", "doubled"),
    ("split", "joined"),
    ("split", "joined"),
    ("split", "doubled"),
    ("split", "doubled"),
    ("split", "joined"),
    ("joined", "joined"),
    ("joined", "joined"),
    ("joined", "joined"),
    ("joined", "joined"),
    ("joined", "joined"),
    ("split", "joined"),
    ("joined", "joined"),
    ("joined", "joined"),
    ("joined", "joined"),
    ("joined", "joined"),
)
