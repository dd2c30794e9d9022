"""The training step of every task: loss, gradients, clipping, update, in one compiled graph."""

from mindspore import nn, ops


class TrainStep(nn.Cell):
    """One optimizer step on a batch: dataset columns -> scalar loss, from before the update.

    Args:
        network_with_loss: cell from the dataset's columns to a scalar loss.
        optimizer: over the parameters to train.
        clip_norm: largest norm of all gradients together; 0 switches clipping off.
    """

    def __init__(self, network_with_loss, optimizer, clip_norm=0.0):
        super().__init__(auto_prefix=False)
        self.network_with_loss = network_with_loss
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.loss_and_gradients = ops.value_and_grad(network_with_loss, None, optimizer.parameters)

    def construct(self, *columns):
        loss, gradients = self.loss_and_gradients(*columns)
        if self.clip_norm > 0:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        return ops.depend(loss, self.optimizer(gradients))
