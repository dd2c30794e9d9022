"""Classification as a task: what train.py, eval.py and export.py need to know about it."""

import dataclasses

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from src.classification.augment import CenterCrop, TrainTransform
from src.classification.dataset import Samples, build_dataset, find_split, list_samples
from src.classification.loss import ClassificationLoss
from src.classification.metrics import TOP, ClassificationMetrics
from src.classification.settings import ClassificationConfig
from src.errors import UserError
from src.ghostnetv2 import create_network
from src.images import load_image


class ClassificationTask:
    """Image classification on folders of pictures.

    `config` is completed by what the data tell: the class names.
    """

    best_metric = "top_1_accuracy"

    def __init__(self, config: ClassificationConfig):
        self.config = config

    def build_dataset(self, split, runtime, first_epoch=0):
        """Pipeline of (images, labels) for 'train' or 'val'; see `build_dataset` of the dataset module.

        Raises:
            UserError: if the data are not there, or their classes are not the network's.
        """
        data, network = self.config.data, self.config.network
        folder = find_split(data.path, split)
        names, paths, labels = list_samples(folder, data.class_names)
        if len(names) != network.num_classes:
            raise UserError(
                f"{folder}: has {len(names)} classes, the network {network.num_classes}; "
                f"--num_classes {len(names)} builds one that fits"
            )
        self.config = dataclasses.replace(self.config, data=dataclasses.replace(data, class_names=names))
        training = split == "train"
        batch_size = (self.config.train if training else self.config.evaluation).batch_size
        if training and len(paths) // runtime.ranks < batch_size:
            raise UserError(f"{folder}: has {len(paths)} images, fewer than one batch of {batch_size}")
        seed = self.config.runtime.seed
        samples = Samples(
            labels, seed, shuffle=training, rank=runtime.rank, ranks=runtime.ranks, first_epoch=first_epoch
        )
        return build_dataset(
            samples,
            paths,
            self.build_transform(training),
            batch_size,
            data.mean,
            data.std,
            seed=seed,
            workers=data.workers,
            drop_remainder=training,
        )

    def build_transform(self, training: bool):
        """The transform of training or of evaluation."""
        data, augment = self.config.data, self.config.augment
        if not training:
            return CenterCrop(data.image_size, data.eval_resize, data.interpolation)
        return TrainTransform(
            data.image_size,
            augment.crop_scale,
            augment.crop_ratio,
            augment.flip,
            augment.color_jitter,
            data.interpolation,
        )

    def build_network(self):
        """Images (N, 3, H, W) -> logits (N, classes)."""
        network = self.config.network
        return create_network(network.name, network.num_classes, dropout=network.dropout, **network.backbone_options())

    def attach_loss(self, network):
        """(images, labels) -> scalar loss."""
        return ClassificationLoss(network, self.config.loss.label_smoothing)

    def evaluate(self, network, dataset) -> dict:
        """Metrics over every image of `dataset` once; a short last batch is filled up, so one graph serves all."""
        network.set_train(False)
        metrics, batch_size = ClassificationMetrics(), None
        batches = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
        for images, labels in tqdm(
            batches, total=dataset.get_dataset_size(), desc="evaluate", unit="batch", leave=False, disable=None
        ):
            batch_size = batch_size or len(images)
            filling = np.zeros((batch_size - len(images), *images.shape[1:]), images.dtype)
            logits = network(Tensor(np.concatenate((images, filling)))).asnumpy()
            metrics.update(logits[: len(labels)], labels)
        return metrics.result()

    def build_export_network(self, network):
        """The network to export, the shapes of its inputs without the batch, and its input and output names."""
        size = self.config.data.image_size
        return network, {"image": (3, size, size)}, ("logits",)

    def predict(self, network, paths, output_dir=None):
        """Yield a line a picture, then one line for each of its five most probable classes.

        Args:
            network: from `build_network`.
            paths: image files.
            output_dir: not used, this task draws nothing.
        """
        network.set_train(False)
        data = self.config.data
        transform = self.build_transform(training=False)
        mean, std = np.array(data.mean, np.float32), np.array(data.std, np.float32)
        names = data.class_names or tuple(f"class {index}" for index in range(self.config.network.num_classes))
        for path in paths:
            pixels = np.asarray(transform(load_image(path)), np.float32) / 255
            image = ((pixels - mean) / std).transpose(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
            logits = network(Tensor(image)).asnumpy()[0].astype(np.float64)
            probabilities = np.exp(logits - logits.max())
            probabilities /= probabilities.sum()
            yield f"{path}"
            for index in np.argsort(-probabilities, kind="stable")[:TOP]:
                yield f"  {probabilities[index]:7.2%}  {names[index]}"
