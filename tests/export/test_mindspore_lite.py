"""MINDIR files have only operators that MindSpore Lite lists for CPU and float32."""

import pytest
from helpers import PROJECT
from mindspore.train import mind_ir_pb2

from src.config import load_config
from src.export.folding import fold_batch_norm
from src.export.mindir_file import write_mindspore
from src.tasks import SCHEMAS, create_task

# our operator: its name in the list, www.mindspore.cn/lite/docs/en/r2.10.0/reference/operator_list_lite.html; the
# converter fuses some kinds into one, of which the list has the name
LISTED = {
    "Add": "AddFusion",
    "AvgPool": "AvgPoolFusion",
    "BiasAdd": "BiasAdd",
    "BroadcastTo": "BroadcastTo",
    "Cast": "Cast",
    "Concat": "Concat",
    "Conv2D": "Conv2DFusion",
    "Exp": "ExpFusion",
    "Flatten": "Flatten",
    "HSigmoid": "Activation",
    "LeakyReLU": "LeakyReLU",
    "MatMul": "MatMulFusion",
    "Maximum": "Maximum",
    "Minimum": "Minimum",
    "Mul": "MulFusion",
    "ReLU": "Activation",
    "Reshape": "Reshape",
    "ResizeBilinearV2": "Resize",
    "ResizeNearestNeighborV2": "Resize",
    "Sigmoid": "Activation",
    "StridedSlice": "StridedSlice",
    "Sub": "SubFusion",
    "Transpose": "Transpose",
}
NO_OPERATORS = {"Depend", "Load", "MakeTuple", "Return", "UpdateState"}  # of the graph itself


@pytest.mark.parametrize("name", ["classification/digits", "detection/bccd", "segmentation/camvid"])
def test_operators_are_listed(tmp_path, name, graph_mode):
    task = create_task(load_config(PROJECT / "configs" / f"{name}.yaml", SCHEMAS))
    network = fold_batch_norm(task.build_export_network(task.build_network()).set_train(False))
    path = tmp_path / "network.mindir"
    write_mindspore(network, path, "MINDIR", task.export_signature().input_shape, 1, {})
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    operators = {primitive.op_type for primitive in model.primitives}
    assert len(operators) > 10
    assert operators - NO_OPERATORS <= set(LISTED)
