"""Training of image classifiers (paper, section 5)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.config import ClassifierConfig, ClassifierTrainConfig
from posedy.data.image_folder import ClassifierTrainDataset, LabeledImages
from posedy.data.loaders import Batch, EpochBatchSampler
from posedy.evaluation.classifier_eval import CLASSIFIER_METRICS, ClassifierTest, format_top
from posedy.models.classifier import Classifier
from posedy.models.dynamic_conv import make_kernels_equal
from posedy.models.factory import create_classifier
from posedy.models.pose_net import normalize_crops
from posedy.models.transfer import load_pretrained_classifier
from posedy.training.distributed import DistributedContext
from posedy.training.optim import ModelEMA, compare_temperatures
from posedy.training.step import TrainingStep
from posedy.training.task import Evaluation, Task


class ClassifierTask(Task[Classifier]):
    """Training of a classifier on images in folders.

    Args:
        config: the experiment.
        context: the processes of the run.

    Raises:
        OSError, ValueError: if the dataset is invalid.
    """

    unit = "images"
    metrics = CLASSIFIER_METRICS
    curves = CLASSIFIER_METRICS
    id_key = "index"
    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig, context: DistributedContext) -> None:
        self.config, self.context = config, context
        self._train = LabeledImages.read(config.data.root, "train")
        val = LabeledImages.read(config.data.root, config.data.val_folder)
        self._val = val.with_classes(self._train.classes, str(self._train.folder))
        for images in (self._train, self._val):
            context.log(str(images))
        self.train_size, self.val_size = len(self._train), len(self._val)
        self.fingerprint = f"{self._train.fingerprint}/{self._val.fingerprint}"
        self.samples = ClassifierTrainDataset(self._train, config.model.input_size, config.augment, config.train.seed)

    def make_sampler(self) -> EpochBatchSampler:
        """Creates the batch sampler of this process."""
        train = self.config.train
        return EpochBatchSampler(
            self.train_size, train.batch_size, train.seed, self.context.rank, self.context.world_size
        )

    def build_network(self, weights: Path | None) -> Classifier:
        """Builds the network and loads pretrained weights, if given."""
        model = self.config.model
        net = create_classifier(
            model.name,
            self._train.classes,
            num_kernels=model.num_kernels,
            temperature=self.config.train.temperature.start,
            dropout=model.dropout,
            input_size=(model.input_size, model.input_size),
            **model.options,
        )
        if self.config.train.equal_kernels:
            make_kernels_equal(net)
        if weights is not None:
            self.context.log(f"loaded pretrained weights {load_pretrained_classifier(net, weights)}")
            for warning in compare_temperatures(net, self.config.train.temperature):
                self.context.log(warning)
        return net

    def make_step(self, net: Classifier, optimizer: torch.optim.Optimizer, ema: ModelEMA | None) -> "ClassifierStep":
        """Creates the training step."""
        return ClassifierStep(net, optimizer, ema, self.config, self.context, len(self._train.classes))

    def evaluate(self, net: Classifier, workers: int, progress: bool) -> Evaluation:
        """Evaluates a network on the validation set."""
        test = self._make_test(workers, progress)
        return Evaluation(test.evaluate(net), test.protocol)

    def evaluate_batch(self, net: Classifier) -> int:
        """Predicts the first validation batch; returns the number of images."""
        return self._make_test().predict_first_batch(net)

    def _make_test(self, workers: int = 0, progress: bool = False) -> ClassifierTest:
        size = self.config.model.input_size
        return ClassifierTest(self._val, size, self.config.eval, self.context.accelerator, workers, progress)

    def describe(self, evaluation: Evaluation) -> str:
        """Formats top-1 and top-5."""
        return format_top(*evaluation)

    def describe_ids(self, ids: Tensor) -> str:
        """Names the images of a batch."""
        names = [str(self._train.paths[index]) for index in ids.tolist()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{', '.join(names[:3])}{more}: check these images"


class ClassifierStep(TrainingStep):
    """A `TrainingStep` of a classifier: cross-entropy with label smoothing, and mixup.

        t = (1 - s) onehot(y) + s / C,    loss = -sum_c t_c log softmax(z)_c

    Mixup (Zhang et al., ICLR 2018) replaces the images of a batch x and their targets t by those of x' = l x + (1 - l)
    x[p] with a permutation p of the process's images and l from Beta(a, a), from torch's generator, which checkpoints
    save.

    Args:
        net: the network.
        optimizer: its optimizer.
        ema: its moving average, or None.
        config: the experiment.
        context: the processes that share each batch.
        num_classes: number C of classes.
    """

    config: ClassifierTrainConfig

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: ModelEMA | None,
        config: ClassifierConfig,
        context: DistributedContext,
        num_classes: int,
    ) -> None:
        super().__init__(net, optimizer, ema, config.train, context)
        self._mixup, self._num_classes = config.augment.mixup, num_classes

    def losses(self, batch: Batch, num_samples: int) -> Sequence[Callable[[], Tensor]]:
        """Returns functions that compute the losses of the micro-batches."""
        device, smoothing = self.context.device, self.config.label_smoothing
        images, labels, weights = (batch[key].to(device, non_blocking=True) for key in ("image", "label", "weight"))
        images = normalize_crops(images.permute(0, 2, 3, 1))
        targets = F.one_hot(labels, self._num_classes) * (1 - smoothing) + smoothing / self._num_classes
        targets = targets * weights.float()[:, None]
        if self._mixup:
            share = float(torch.distributions.Beta(self._mixup, self._mixup).sample())
            order = torch.randperm(len(images)).to(device)
            images, targets = (share * values + (1 - share) * values[order] for values in (images, targets))
        return [partial(self._loss, part, num_samples) for part in self.split(images, targets)]

    def _loss(self, tensors: tuple[Tensor, ...], num_samples: int) -> Tensor:
        images, targets = tensors
        logits = self.wrapped_net(images)
        with torch.autocast(images.device.type, enabled=False):
            return -(targets * logits.float().log_softmax(dim=1)).sum() / num_samples
