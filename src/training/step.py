"""The training step of every task, in one compiled graph: loss, gradients, their mean over batches and processes,
loss scale, clipping, update, and the moving average of the weights."""

import mindspore
from mindspore import Parameter, ParameterTuple, Tensor, amp, nn, ops

from src.layers.dropout import Dropout
from src.weights.files import EMA_PREFIX

LOSS_SCALE_WINDOW = 2000  # finite updates before the loss scale is doubled


class TrainStep(nn.Cell):
    """One batch through the network: dataset columns -> its scalar loss before any update, averaged over processes.

    Args:
        network_with_loss: cell from the dataset's columns to a scalar loss.
        optimizer: over the parameters to train.
        clip_norm: largest norm of all gradients together; 0 switches clipping off.
        accumulation_steps: batches whose mean gradient makes an update.
        loss_scale: 'none', 'fixed' or 'dynamic'. Unless none, an update with a gradient that is not finite is left
            out and counted, running statistics go back to those of the last good one, and the schedule goes on as if
            it had been made; dynamic also halves the scale.
        initial_loss_scale: of both kinds.
        average: `WeightAverage`, or None.
        ranks: `Ranks` of the run, whose gradients are averaged.
        seed: of all dropout in the network.
    """

    def __init__(
        self,
        network_with_loss,
        optimizer,
        clip_norm,
        accumulation_steps,
        loss_scale,
        initial_loss_scale,
        average,
        ranks,
        seed,
    ):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.accumulation_steps = accumulation_steps
        self.average = average
        self.ranks = ranks.count
        self.scaler = build_loss_scaler(loss_scale, initial_loss_scale)
        self.skipped_updates = Parameter(Tensor(0, mindspore.int32), name="skipped_updates", requires_grad=False)
        self.batches = Parameter(Tensor(0, mindspore.int32), name="batches", requires_grad=False)
        weights = optimizer.parameters
        self.sums = weights.clone(prefix="sums", init="zeros") if accumulation_steps > 1 else None
        self.statistics = self.good_statistics = None
        if self.scaler is not None:
            frozen = [parameter for parameter in network_with_loss.get_parameters() if not parameter.requires_grad]
            self.statistics = ParameterTuple(frozen)
            self.good_statistics = self.statistics.clone(prefix="good", init="same")
        self.scaled_loss = ScaledLoss(network_with_loss, self.scaler)
        self.loss_and_gradients = ops.value_and_grad(self.scaled_loss, None, weights, has_aux=True)
        if ranks.count > 1:
            self.average_gradients = nn.DistributedGradReducer(weights, mean=True, degree=ranks.count)
            self.sum_over_ranks = ops.AllReduce()
        self.hyper_map = ops.HyperMap()
        self.dropouts = [cell for _, cell in network_with_loss.cells_and_names() if isinstance(cell, Dropout)]
        for index, dropout in enumerate(self.dropouts):
            dropout.seed((seed, index), f"dropout_{index}", ranks.rank, ranks.count)

    def construct(self, *columns):
        (_, loss), gradients = self.loss_and_gradients(*columns)
        if self.ranks > 1:
            loss = self.sum_over_ranks(loss) / self.ranks
        if self.accumulation_steps == 1:
            self.update(gradients)
            return loss
        self.hyper_map(ops.partial(_add, self.accumulation_steps), self.sums, gradients)
        batches = ops.assign_add(self.batches, 1)
        if batches % self.accumulation_steps == 0:
            self.update(self.sums)
            self.hyper_map(_clear, self.sums)
        return loss

    def update(self, gradients):
        """Change the weights, unless a scaled gradient is not finite."""
        if self.ranks > 1:
            gradients = self.average_gradients(gradients)
        if self.scaler is None:
            self.apply(gradients)
            return
        gradients = self.scaler.unscale(gradients)
        finite = amp.all_finite(gradients)
        if self.ranks > 1:  # all or none, whatever each makes of the shared gradients
            finite = self.sum_over_ranks(finite.astype(mindspore.float32).reshape(1)).reshape(()) == self.ranks
        if finite:
            self.apply(gradients)
            self.hyper_map(_copy, self.good_statistics, self.statistics)
        else:
            ops.assign_add(self.skipped_updates, 1)
            ops.assign_add(self.optimizer.global_step, 1)  # the schedule goes on
            self.hyper_map(_copy, self.statistics, self.good_statistics)
        self.scaler.adjust(finite)

    def apply(self, gradients):
        """Clip the gradients, change the weights, and let their average follow."""
        if self.clip_norm > 0:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        self.optimizer(gradients)
        if self.average is not None:
            self.average()

    def keep_statistics(self) -> None:
        """Note the running statistics, set from outside, as those that a skipped update goes back to."""
        for good, statistic in zip(self.good_statistics or (), self.statistics or ()):
            good.set_data(Tensor(statistic.asnumpy()))

    def updates_tried(self) -> int:
        """Give the optimizer's count of updates, made and skipped; it chooses the learning rate."""
        return int(self.optimizer.global_step.asnumpy()[0])

    def loss_scale(self) -> float:
        """Give the loss scale of the next batch; 1 without one."""
        return 1.0 if self.scaler is None else float(self.scaler.scale_value.asnumpy())

    def state(self) -> dict:
        """Collect {name: Parameter} of all that a resumed run needs besides the weights and the schedule."""
        weights = {parameter.name for parameter in self.optimizer.parameters}
        optimizer = {p.name: p for p in self.optimizer.get_parameters() if p.name not in weights}
        state = {name: p for name, p in optimizer.items() if not name.startswith("learning_rate")}
        kept = [self.skipped_updates, *(dropout.generator.state for dropout in self.dropouts)]
        if self.scaler is not None:
            state["loss_scale"] = self.scaler.scale_value
            if hasattr(self.scaler, "counter"):
                state["loss_scale_counter"] = self.scaler.counter
        return {**state, **{parameter.name: parameter for parameter in kept}}


_copy = ops.MultitypeFuncGraph("copy")
_add = ops.MultitypeFuncGraph("add")
_clear = ops.MultitypeFuncGraph("clear")


@_copy.register("Tensor", "Tensor")
def _copy_tensor(target, source):
    return ops.assign(target, source)


@_add.register("Number", "Tensor", "Tensor")
def _add_share(count, total, gradient):
    return ops.assign_add(total, gradient / count)


@_clear.register("Tensor")
def _set_to_zero(total):
    return ops.assign(total, ops.zeros_like(total))


class ScaledLoss(nn.Cell):
    """Dataset columns -> (loss times the loss scale, loss)."""

    def __init__(self, network_with_loss, scaler):
        super().__init__(auto_prefix=False)
        self.network_with_loss = network_with_loss
        self.scaler = scaler

    def construct(self, *columns):
        loss = self.network_with_loss(*columns)
        return loss if self.scaler is None else self.scaler.scale(loss), loss


def build_loss_scaler(kind, scale):
    """Build MindSpore's loss scaler of a kind; None for 'none'."""
    if kind == "none":
        return None
    return amp.DynamicLossScaler(scale, 2, LOSS_SCALE_WINDOW) if kind == "dynamic" else amp.StaticLossScaler(scale)


_follow = ops.MultitypeFuncGraph("follow")


@_follow.register("Tensor", "Tensor", "Tensor", "Tensor")
def _follow_weight(decay, rest, average, weight):
    return ops.assign(average, decay * average + rest * weight)


class WeightAverage(nn.Cell):
    """Exponential moving average of all parameters of a network, statistics of batch normalisation among them.

    A call moves each average to decay * average + (1 - decay) * weight, as timm's ModelEma does after an update.

    Args:
        network: is trained.
        average: another network of the same kind, whose parameters become the averages, with `EMA_PREFIX` in their
            names; it begins as a copy.
        decay: share of the average that stays.
    """

    def __init__(self, network, average, decay):
        super().__init__(auto_prefix=False)
        weights = {parameter.name: parameter for parameter in network.get_parameters()}
        averages = list(average.get_parameters())
        self.weights = ParameterTuple([weights[parameter.name] for parameter in averages])
        for parameter, weight in zip(averages, self.weights):
            parameter.name = EMA_PREFIX + parameter.name
            parameter.requires_grad = False
            parameter.set_data(Tensor(weight.asnumpy()))
        self.averages = ParameterTuple(averages)
        self.decay, self.rest = Tensor(decay, mindspore.float32), Tensor(1 - decay, mindspore.float32)
        self.hyper_map = ops.HyperMap()

    def construct(self):
        return self.hyper_map(ops.partial(_follow, self.decay, self.rest), self.averages, self.weights)
