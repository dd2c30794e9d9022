"""The training step of every task: loss, gradients, their mean over batches and processes, loss scale, clipping,
update, and the moving average of the weights.

Everything behind the gradients works on vectors of all arrays, and without branches: where an update is skipped, each
vector keeps its values. So a step is one graph, or two where several batches make an update.
"""

import mindspore
from mindspore import Parameter, Tensor, amp, nn, ops

from src.layers.dropout import Dropout
from src.training.average import WeightAverage
from src.training.flat import FlatArrays, choose, squared_norm
from src.weights.files import EMA_PREFIX, STATE_PREFIX

LOSS_SCALE_WINDOW = 2000  # finite updates before the loss scale is doubled


class TrainStep:
    """One batch through the network: dataset columns -> its scalar loss before any update, averaged over processes.

    Args:
        network_with_loss: cell from the dataset's columns to a scalar loss.
        network: the part of it that is trained, running statistics among them; all else stays as it is.
        optimizer: `Optimizer` of the parameters to train.
        clip_norm: largest norm of all gradients together; 0 switches clipping off.
        accumulation_steps: batches whose mean gradient makes an update.
        loss_scale: 'none', 'fixed' or 'dynamic'. Unless none, an update with a gradient that is not finite is left
            out and counted, running statistics go back to those of the last good one, and the schedule goes on as if
            it had been made; dynamic also halves the scale.
        initial_loss_scale: of both kinds.
        average_decay: share of the moving average of the weights that stays at an update; 0 for no average.
        ranks: `Ranks` of the run, whose gradients are averaged.
        seed: of all dropout in the network.
    """

    def __init__(
        self,
        network_with_loss,
        network,
        optimizer,
        clip_norm,
        accumulation_steps,
        loss_scale,
        initial_loss_scale,
        average_decay,
        ranks,
        seed,
    ):
        self.optimizer, self.accumulation_steps, self.batches = optimizer, accumulation_steps, 0
        self.scaler = build_loss_scaler(loss_scale, initial_loss_scale)
        trained = {parameter.name for parameter in optimizer.flat.parameters}
        others = [p for p in network.get_parameters() if p.name not in trained]
        others = FlatArrays(others) if others else None
        self.average = WeightAverage(optimizer.flat, others, average_decay) if average_decay > 0 else None
        gradients = Gradients(network_with_loss, optimizer.flat, self.scaler, ranks)
        update = Update(optimizer, clip_norm, self.scaler, self.average, others, ranks)
        self.skipped_updates, self.statistics = update.skipped_updates, update.statistics
        self.cells = [WholeStep(gradients, update)]
        if accumulation_steps > 1:
            total = optimizer.flat.new_vector("sums", 0.0)
            self.cells = [Accumulation(gradients, total, accumulation_steps), UpdateOfSum(update, total)]
        self.dropouts = [cell for _, cell in network_with_loss.cells_and_names() if isinstance(cell, Dropout)]
        for index, dropout in enumerate(self.dropouts):
            dropout.seed((seed, index), f"dropout_{index}", ranks.rank, ranks.count)

    def __call__(self, *columns):
        loss = self.cells[0](*columns)
        self.batches += 1
        if self.accumulation_steps > 1 and self.batches % self.accumulation_steps == 0:
            self.cells[1]()
        return loss

    @property
    def training(self) -> bool:
        """Whether the network is in training mode."""
        return self.cells[0].training

    def set_train(self, mode=True):
        """Set the mode of the network."""
        for cell in self.cells:
            cell.set_train(mode)
        return self

    def compile(self, *columns) -> None:
        """Compile the graphs of a batch of these columns, without running them."""
        self.cells[0].compile(*columns)
        for cell in self.cells[1:]:
            cell.compile()

    def refresh(self) -> None:
        """Take over parameters of the network that were set from outside."""
        self.optimizer.refresh()
        if self.statistics is not None:
            self.statistics.flat.refresh(self.statistics.good)

    def updates_tried(self) -> int:
        """Give the optimizer's count of updates, made and skipped; it chooses the learning rate."""
        return int(self.optimizer.global_step.asnumpy()[0])

    def loss_scale(self) -> float:
        """Give the loss scale of the next batch; 1 without one."""
        return 1.0 if self.scaler is None else float(self.scaler.scale_value.asnumpy())

    def vectors(self) -> list:
        """Collect (prefix of names, `FlatArrays`, vector) of what a resumed run needs for each array of the network."""
        averages = self.average.parts if self.average is not None else []
        states = [(f"{STATE_PREFIX}{vector.name}.", self.optimizer.flat, vector) for vector in self.optimizer.vectors]
        return [(EMA_PREFIX, flat, vector) for flat, vector in averages] + states

    def state(self) -> dict:
        """Collect {name: Parameter} of all that a resumed run needs besides the weights and `vectors`."""
        kept = [self.optimizer.global_step, *self.optimizer.numbers, self.skipped_updates]
        kept += [dropout.generator.state for dropout in self.dropouts]
        state = {parameter.name: parameter for parameter in kept}
        if self.scaler is not None:
            state["loss_scale"] = self.scaler.scale_value
            if hasattr(self.scaler, "counter"):
                state["loss_scale_counter"] = self.scaler.counter
        return state


class Gradients(nn.Cell):
    """Dataset columns -> loss, averaged over processes, and the scaled gradients as a vector (L,).

    Args:
        network_with_loss: cell from the dataset's columns to a scalar loss.
        flat: `FlatArrays` of the parameters to train.
        scaler: of the loss, or None.
        ranks: `Ranks` of the run.
    """

    def __init__(self, network_with_loss, flat, scaler, ranks):
        super().__init__(auto_prefix=False)
        self.flat, self.ranks = flat, ranks.count
        self.scaled_loss = ScaledLoss(network_with_loss, scaler)
        self.loss_and_gradients = ops.value_and_grad(self.scaled_loss, None, flat.parameters, has_aux=True)
        if ranks.count > 1:
            self.sum_over_ranks = ops.AllReduce()

    def construct(self, *columns):
        (_, loss), gradients = self.loss_and_gradients(*columns)
        if self.ranks > 1:
            loss = self.sum_over_ranks(loss.reshape(1)).reshape(()) / self.ranks
        return loss, self.flat.join(gradients)


class Update(nn.Cell):
    """Scaled gradients (L,) -> count of updates tried, with the change of the weights and of all that follows them.

    Args:
        optimizer: `Optimizer`.
        clip_norm, scaler, ranks: see `TrainStep`.
        average: `WeightAverage`, or None.
        others: `FlatArrays` of the network's parameters that are not trained, or None.
    """

    def __init__(self, optimizer, clip_norm, scaler, average, others, ranks):
        super().__init__(auto_prefix=False)
        self.optimizer, self.average, self.scaler, self.ranks = optimizer, average, scaler, ranks.count
        self.clip_norm = clip_norm
        self.statistics = GoodStatistics(others) if scaler is not None and others is not None else None
        self.others = others
        self.skipped_updates = Parameter(Tensor(0, mindspore.int32), name="skipped_updates", requires_grad=False)
        if ranks.count > 1:
            self.sum_over_ranks = ops.AllReduce()

    def construct(self, gradient):
        if self.ranks > 1:
            gradient = self.sum_over_ranks(gradient) / self.ranks
        finite = None
        if self.scaler is not None:
            gradient = gradient * (1.0 / self.scaler.scale_value)
            finite = ops.isfinite(gradient).all()
            if self.ranks > 1:  # all or none, whatever each makes of the shared gradients
                finite = self.sum_over_ranks(finite.astype(mindspore.float32).reshape(1)).reshape(()) == self.ranks
            ops.assign_add(self.skipped_updates, 1 - finite.astype(mindspore.int32))
            self.scaler.adjust(finite)
        if self.clip_norm > 0:
            norm = ops.sqrt(squared_norm(gradient))
            gradient = gradient * (self.clip_norm / ops.maximum(norm, self.clip_norm))
        weights = self.optimizer(gradient, finite)
        if self.statistics is not None:
            others = self.statistics(finite)
        elif self.average is not None and self.others is not None:
            others = self.others.read()
        else:
            others = None
        if self.average is not None:
            self.average(weights, others, finite)
        return self.optimizer.global_step


class GoodStatistics(nn.Cell):
    """Parameters that are not trained, such as running statistics, go back to what they were before a skipped update.

    Args:
        flat: `FlatArrays` of them.
    """

    def __init__(self, flat):
        super().__init__(auto_prefix=False)
        self.flat = flat
        self.good = flat.copy("good_statistics")

    def construct(self, finite):
        good = ops.assign(self.good, choose(finite, self.flat.read(), self.good))
        self.flat.write(good)
        return good


class WholeStep(nn.Cell):
    """A batch and the update that it makes: dataset columns -> loss."""

    def __init__(self, gradients, update):
        super().__init__(auto_prefix=False)
        self.gradients, self.update = gradients, update

    def construct(self, *columns):
        loss, gradient = self.gradients(*columns)
        self.update(gradient)
        return loss


class Accumulation(nn.Cell):
    """One of the batches of an update: dataset columns -> loss; its share of the gradients is added to `total`."""

    def __init__(self, gradients, total, count):
        super().__init__(auto_prefix=False)
        self.gradients, self.total, self.count = gradients, total, count

    def construct(self, *columns):
        loss, gradient = self.gradients(*columns)
        ops.assign_add(self.total, gradient / self.count)
        return loss


class UpdateOfSum(nn.Cell):
    """The update by the gradients of several batches, `total`, which it clears."""

    def __init__(self, update, total):
        super().__init__(auto_prefix=False)
        self.update, self.total = update, total

    def construct(self):
        result = self.update(self.total)
        ops.assign(self.total, ops.zeros_like(self.total))
        return result


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
