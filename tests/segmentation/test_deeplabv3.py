"""DeepLabV3 against PyTorch, written once more with its functions; training's outputs; export's size."""

import mindspore
import numpy as np
import pytest
from helpers import normal, randomise, reference
from mindspore import Tensor, nn

from src.export.folding import fold_batch_norm
from src.segmentation.deeplabv3 import ASPP, ClassifierHead, DeepLabV3, FullSizeLogits

DILATIONS = (2, 3)


class Backbone(nn.Cell):
    """Stands in for GhostNetV2: the four maps of an image are averages of it, the last two at the same stride."""

    feature_channels = (3, 3, 3, 3)

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4, 4)

    def construct(self, x):
        x = self.pool(x)
        return x, x, x * 2, x


@pytest.fixture
def pynative():
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # conftest's `graph_mode` undoes it


def conv_bn_relu(cell, x, dilation=1):
    """One of our ConvBnAct in evaluation, by PyTorch."""
    torch = reference("torch")
    weight = torch.from_numpy(cell.conv.weight.asnumpy())
    x = torch.nn.functional.conv2d(x, weight, padding=dilation * (weight.shape[2] // 2), dilation=dilation)
    bn = [torch.from_numpy(p.asnumpy()) for p in (cell.bn.moving_mean, cell.bn.moving_variance, cell.bn.gamma)]
    return torch.relu(torch.nn.functional.batch_norm(x, *bn, torch.from_numpy(cell.bn.beta.asnumpy())))


def aspp_in_torch(aspp, x, dilations):
    torch = reference("torch")
    first, *spatial, pooling = aspp.branches
    mean = conv_bn_relu(pooling.project, torch.nn.functional.adaptive_avg_pool2d(x, 1))
    pooled = torch.nn.functional.interpolate(mean, x.shape[2:], mode="bilinear", align_corners=False)
    maps = [conv_bn_relu(first, x)]
    maps += [conv_bn_relu(cell, x, dilation) for cell, dilation in zip(spatial, dilations)]
    return torch.cat([*maps, pooled], 1)


def head_in_torch(head, x):
    torch = reference("torch")
    weight, bias = (torch.from_numpy(p.asnumpy()) for p in (head.classifier.weight, head.classifier.bias))
    return torch.nn.functional.conv2d(conv_bn_relu(head.bottleneck, x), weight, bias)


def network_in_torch(network, x):
    """Logits of `network` with `Backbone`, and auxiliary logits."""
    torch = reference("torch")
    x = torch.nn.functional.avg_pool2d(torch.from_numpy(x), 4)
    logits = head_in_torch(network.head, aspp_in_torch(network.aspp, x, DILATIONS))
    return logits, head_in_torch(network.auxiliary_head, 2 * x)


def small_network():
    return randomise(DeepLabV3(Backbone(), 5, 8, DILATIONS, 6, dropout=0.1))


def test_logits_equal_pytorch_at_any_aspect(pynative):
    network = small_network()
    for size in ((48, 64), (36, 20)):
        x = normal(2, 3, *size)
        expected = network_in_torch(network, x)[0].numpy()
        assert expected.shape == (2, 5, size[0] // 4, size[1] // 4)
        assert np.abs(network(Tensor(x)).asnumpy() - expected).max() < 1e-5


def test_auxiliary_logits_come_from_the_third_map_in_training_only(pynative):
    network = small_network()
    x = normal(2, 3, 48, 64)
    expected = network_in_torch(network, x)[1].numpy()
    auxiliary = network.auxiliary_head(network.backbone(Tensor(x))[2]).asnumpy()
    assert np.abs(auxiliary - expected).max() < 1e-5
    logits, auxiliary = network.set_train(True)(Tensor(x))
    assert logits.shape == auxiliary.shape == (2, 5, 12, 16)
    assert np.isfinite(logits.asnumpy()).all() and np.isfinite(auxiliary.asnumpy()).all()


def test_exported_logits_have_the_inputs_size_and_survive_folding():
    torch = reference("torch")
    network = small_network()
    x = normal(1, 3, 48, 64)
    small = network_in_torch(network, x)[0]
    expected = torch.nn.functional.interpolate(small, (48, 64), mode="bilinear", align_corners=False).numpy()
    folded = fold_batch_norm(FullSizeLogits(network))
    assert not [p.name for p in folded.get_parameters() if "gamma" in p.name]
    assert np.abs(folded(Tensor(x)).asnumpy() - expected).max() < 1e-5


def test_default_head_is_the_papers():
    aspp, head = ASPP(160, 512, (12, 24, 36)), ClassifierHead(5 * 512, 512, 150, 0.1)
    kernels = [(cell.conv.kernel_size, cell.conv.dilation) for cell in list(aspp.branches)[:-1]]
    assert kernels == [((1, 1), (1, 1)), *(((3, 3), (d, d)) for d in (12, 24, 36))]
    assert head.bottleneck.conv.weight.shape == (512, 2560, 3, 3)
    assert head.classifier.weight.shape == (150, 512, 1, 1)
    assert head.dropout.p == 0.1
