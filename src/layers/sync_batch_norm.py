"""Batch normalisation over the batches of all processes; MindSpore's own is for Ascend alone."""

from mindspore import nn, ops


class SyncBatchNorm2d(nn.Cell):
    """`nn.BatchNorm2d` whose statistics in training are those of all processes' batches together.

    Takes the parameters of `norm` over. Mean and variance are summed in turn, which loses no digits to
    cancellation. Input and output (N, C, H, W), of the same size on every process.
    """

    def __init__(self, norm, ranks):
        super().__init__(auto_prefix=False)
        self.gamma, self.beta = norm.gamma, norm.beta
        self.moving_mean, self.moving_variance = norm.moving_mean, norm.moving_variance
        self.eps, self.fresh = norm.eps, norm.momentum  # the cell keeps 1 - momentum under this name
        self.ranks = ranks
        self.sum_over_ranks = ops.AllReduce()
        self.inference = ops.BatchNorm(is_training=False, epsilon=norm.eps)

    def construct(self, x):
        if not self.training:
            return self.inference(x, self.gamma, self.beta, self.moving_mean, self.moving_variance)[0]
        count = self.ranks * x.shape[0] * x.shape[2] * x.shape[3]
        mean = self.sum_over_ranks(ops.sum(x, (0, 2, 3), True)) / count  # (N, C, H, W) -> (1, C, 1, 1)
        centred = x - mean
        variance = self.sum_over_ranks(ops.sum(centred * centred, (0, 2, 3), True)) / count
        self.follow(self.moving_mean, mean)
        self.follow(self.moving_variance, variance * (count / max(1, count - 1)))
        scale = self.gamma.reshape(1, -1, 1, 1) * ops.rsqrt(variance + self.eps)
        return centred * scale + self.beta.reshape(1, -1, 1, 1)

    def follow(self, statistic, fresh):
        """Move a running statistic (C,) towards this batch's (1, C, 1, 1)."""
        fresh = ops.stop_gradient(fresh).reshape(statistic.shape)
        ops.assign(statistic, statistic + self.fresh * (fresh - statistic))


def convert_batch_norm(network, ranks):
    """Replace every `nn.BatchNorm2d` inside `network` by `SyncBatchNorm2d`, in place; parameters keep their names.

    One that keeps its statistics in training, see `src.training.finetuning.freeze`, stays as it is.
    """
    for cell in list(network.cells()):
        convert_batch_norm(cell, ranks)
    for name, cell in network.name_cells().items():
        if isinstance(cell, nn.BatchNorm2d) and cell.use_batch_statistics is not False:
            names = {parameter: parameter.name for parameter in cell.get_parameters()}
            setattr(network, name, SyncBatchNorm2d(cell, ranks))
            for parameter, parameter_name in names.items():  # the new cell has changed it
                parameter.name = parameter_name
