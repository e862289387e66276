"""What a network is trained for: its data, network, step and evaluation."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from posedy.config import ClassifierConfig, Config
from posedy.data.loaders import EpochBatchSampler
from posedy.models.network_file import Network
from posedy.training.distributed import DistributedContext
from posedy.training.optim import ModelEMA
from posedy.training.step import TrainingStep

N = TypeVar("N", bound=Network)


class Evaluation(NamedTuple):
    """The metrics of an evaluation, and its protocol as a line of text."""

    metrics: dict[str, float]
    protocol: str


class Task(ABC, Generic[N]):
    """The part of a training run that differs between pose networks and classifiers.

    Attributes:
        unit: what a sample is, in the plural.
        metrics: the names of the metrics.
        curves: the names of the plotted metrics; the first one selects the best weights.
        id_key: the entry of a batch that identifies its samples.
        config: the experiment.
        context: the processes of the run.
        train_size: number of training samples.
        val_size: number of validation samples.
        fingerprint: a hash of the data, independent of file locations.
        samples: the dataset of the training samples.
    """

    unit: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    curves: ClassVar[tuple[str, ...]]
    id_key: ClassVar[str]
    config: Config | ClassifierConfig
    context: DistributedContext
    train_size: int
    val_size: int
    fingerprint: str
    samples: Dataset[dict[str, object]]

    @abstractmethod
    def make_sampler(self) -> EpochBatchSampler:
        """Creates the batch sampler of this process."""

    @abstractmethod
    def build_network(self, weights: Path | None) -> N:
        """Builds the network and loads pretrained weights, if given.

        Raises:
            OSError, ValueError: if the network cannot be built, or the weights do not fit.
        """

    @abstractmethod
    def make_step(self, net: N, optimizer: torch.optim.Optimizer, ema: ModelEMA | None) -> TrainingStep:
        """Creates the training step.

        Raises:
            OSError, ValueError: if a file that it needs is invalid.
        """

    @abstractmethod
    def evaluate(self, net: N, workers: int, progress: bool) -> Evaluation:
        """Evaluates a network on the validation set, of which each process takes a share."""

    @abstractmethod
    def evaluate_batch(self, net: N) -> int:
        """Predicts the first validation batch, to measure the time; returns the number of its samples."""

    @abstractmethod
    def describe(self, evaluation: Evaluation) -> str:
        """Formats the metrics as lines of text for the log."""

    @abstractmethod
    def describe_ids(self, ids: Tensor) -> str:
        """Names the samples of a batch and what to check, for an error."""

    def draw(self, net: N, step: TrainingStep) -> NDArray | None:
        """Draws fixed training samples with predictions: (H, W, 3) uint8 RGB; None if there is nothing to draw."""
        return None
