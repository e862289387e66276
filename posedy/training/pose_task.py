"""Training of pose networks."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from posedy.codecs import HeatmapCodec
from posedy.config import Config
from posedy.data.datasets import SampleIndex, TopDownEvalDataset
from posedy.data.loaders import EpochBatchSampler
from posedy.evaluation.coco_eval import METRIC_NAMES, format_metrics
from posedy.evaluation.evaluator import evaluate_model, predict_crops
from posedy.models.pose_net import PoseNet, normalize_crops
from posedy.prediction import TorchModel
from posedy.training.consistency import make_consistency
from posedy.training.cuda_graph import GraphedStep
from posedy.training.distillation import load_teacher
from posedy.training.distributed import DistributedContext
from posedy.training.optim import ModelEMA
from posedy.training.pose_setup import build_network, make_batch_sampler, read_training_data
from posedy.training.step import PoseStep, TrainingStep
from posedy.training.task import Evaluation, Task
from posedy.training.visualize import draw_batch

_VISUALIZED_SAMPLES = 8


class PoseTask(Task[PoseNet]):
    """Training of a pose network on keypoints in COCO's format.

    Args:
        config: the experiment.
        context: the processes of the run.
        model_class: the class of the network.

    Attributes:
        data: the datasets.

    Raises:
        OSError, ValueError: if a dataset is invalid.
    """

    unit = "persons"
    metrics = METRIC_NAMES
    curves = ("AP", "AP50", "AP75")
    id_key = "annotation_id"
    config: Config

    def __init__(self, config: Config, context: DistributedContext, model_class: type[PoseNet] = PoseNet) -> None:
        self.config, self.context, self.model_class = config, context, model_class
        if config.train.cuda_graph and (context.device.type != "cuda" or context.world_size > 1):
            got = f"device {context.device}" if context.world_size == 1 else f"{context.world_size} processes"
            raise ValueError(f"train.cuda_graph=true requires a CUDA GPU and one process, got {got}: set it to false")
        self.data = read_training_data(config, context.log, context.is_main)
        self.train_size, self.val_size = len(self.data.train), len(self.data.val)
        self.fingerprint, self.samples = self.data.fingerprint, self.data.samples

    def make_sampler(self) -> EpochBatchSampler:
        """Creates the batch sampler of this process."""
        return make_batch_sampler(self.config, self.data, self.context.rank, self.context.world_size)

    def build_network(self, weights: Path | None) -> PoseNet:
        """Builds the network and loads pretrained weights, if given, and the teacher."""
        net = build_network(self.config, self.data.train.skeleton, self.context.log, weights, self.model_class)
        self._teacher = load_teacher(self.config, net, self.context)
        return net

    def make_step(self, net: PoseNet, optimizer: torch.optim.Optimizer, ema: ModelEMA | None) -> PoseStep:
        """Creates the training step, with the teacher and the consistency loss of the configuration."""
        train = self.config.train
        if train.cuda_graph:
            return GraphedStep(net, optimizer, ema, net.codec, train, self.context, self._teacher)
        evaluated = net if ema is None else ema.net
        assert isinstance(evaluated, PoseNet)
        consistency = make_consistency(self.config, evaluated, self.data.train.skeleton, self.context)
        return PoseStep(net, optimizer, ema, net.codec, train, self.context, self._teacher, consistency)

    def evaluate(self, net: PoseNet, workers: int, progress: bool) -> Evaluation:
        """Evaluates a network on the validation set with ground-truth boxes."""
        result = evaluate_model(
            TorchModel(net, self.context.device),
            self.data.val,
            None,
            self.config.eval,
            padding=self.config.data.padding,
            workers=workers,
            gt=self.data.val_gt,
            accelerator=self.context.accelerator,
            progress=progress,
        )
        return Evaluation(result.metrics, str(result.protocol))

    def evaluate_batch(self, net: PoseNet) -> int:
        """Predicts the first validation batch; returns the number of persons."""
        val, first = self.data.val, slice(0, self.config.eval.batch_size)
        crops = TopDownEvalDataset(
            val, val.image_index[first], val.boxes[first], net.codec.input_size, self.config.data.padding
        )
        predict_crops(TorchModel(net.eval(), self.context.device), crops, self.config.eval)
        return len(crops)

    def describe(self, evaluation: Evaluation) -> str:
        """Formats the COCO metrics and the protocol of an evaluation as lines of text."""
        return format_metrics(evaluation.metrics, evaluation.protocol)

    def describe_ids(self, ids: Tensor) -> str:
        """Names the annotations of a batch."""
        return f"annotations {ids.tolist()}: check these annotations"

    @torch.no_grad()
    def draw(self, net: PoseNet, step: TrainingStep) -> NDArray[np.uint8] | None:
        """Draws training crops with their targets and the network's predictions, if it has heatmaps."""
        codec, dataset = net.codec, self.data.train
        if not isinstance(codec, HeatmapCodec) or codec.output_names != ("heatmaps",):
            return None
        indices = [SampleIndex(0, n * len(dataset) // _VISUALIZED_SAMPLES) for n in range(_VISUALIZED_SAMPLES)]
        batch = default_collate(dataset.__getitems__(indices))
        was_training = net.training
        with step.without_autocast():
            heatmaps = net.eval()(normalize_crops(batch["crop"].to(self.context.device))).float().cpu()
        net.train(was_training)
        targets, _ = codec.encode(batch["keypoints"], batch["labeled"])
        predictions, scores = codec.decode({"heatmaps": heatmaps.nan_to_num()})
        return draw_batch(
            batch["crop"].numpy(),
            batch["keypoints"].numpy(),
            batch["labeled"].numpy(),
            targets.numpy(),
            heatmaps.numpy(),
            predictions.numpy(),
            scores.numpy(),
            dataset.skeleton,
            codec.heatmap_to_crop_matrix().numpy(),
            _VISUALIZED_SAMPLES,
        )
