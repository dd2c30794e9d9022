"""The moving average of a network's parameters."""

from mindspore import Tensor, nn, ops

from src.training.flat import choose, scalar


class WeightAverage(nn.Cell):
    """Exponential moving average of all parameters of a network, statistics of batch normalisation among them.

    A call moves each average to decay * average + (1 - decay) * weight, as timm's ModelEma does after an update. It
    begins as a copy.

    Args:
        trained, others: `FlatArrays` of the parameters that are trained and those that are not; the latter or None.
        decay: share of the average that stays.

    Attributes:
        parts: [(`FlatArrays`, vector of their averages), ...].
    """

    def __init__(self, trained, others, decay):
        super().__init__(auto_prefix=False)
        self.trained = trained.copy("average_trained")
        self.others = None if others is None else others.copy("average_others")
        self.parts = [(trained, self.trained)] + [(others, self.others)] * (others is not None)
        self.decay, self.rest = scalar(decay), scalar(1 - decay)

    def construct(self, trained, others, finite):
        ops.assign(self.trained, choose(finite, self.decay * self.trained + self.rest * trained, self.trained))
        if self.others is not None:
            ops.assign(self.others, choose(finite, self.decay * self.others + self.rest * others, self.others))
        return trained

    def write_to(self, network) -> None:
        """Set the parameters of another network of the same kind to the averages."""
        parameters = {parameter.name: parameter for parameter in network.get_parameters()}
        for flat, vector in self.parts:
            for name, value in flat.unpack(vector.asnumpy()).items():
                parameters[name].set_data(Tensor(value))

    def read_from(self, network) -> None:
        """Set the averages to the parameters of another network of the same kind."""
        arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
        for flat, vector in self.parts:
            vector.set_data(Tensor(flat.pack(arrays)))
