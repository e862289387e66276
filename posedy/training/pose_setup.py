"""Datasets, batch sampler and network of a pose network's training run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from posedy.config import Config, KeypointSet
from posedy.data.coco import CocoPersons, GroundTruth, read_coco
from posedy.data.coco_file import CocoFile
from posedy.data.datasets import AugmentedCropDataset, TopDownTrainDataset
from posedy.data.image_check import ImageCheck
from posedy.data.issues import format_reasons
from posedy.data.loaders import EpochBatchSampler, MixedBatchSampler
from posedy.data.shards import ShardTrainDataset
from posedy.data.unlabeled import MixedDataset, UnlabeledDataset, read_unlabeled
from posedy.evaluation.coco_eval import check_evaluation
from posedy.geometry import DEFAULT_PADDING
from posedy.models.dynamic_conv import make_kernels_equal
from posedy.models.factory import create_model
from posedy.models.pose_net import PoseNet
from posedy.models.transfer import load_pretrained
from posedy.skeleton import Skeleton
from posedy.training.optim import compare_temperatures

Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The datasets of a training run.

    Attributes:
        train: the training set.
        val: the validation set.
        val_gt: ground truth of the validation set for COCOeval.
        unlabeled: the persons without keypoints of `data.unlabeled`, if any.
    """

    train: AugmentedCropDataset
    val: CocoPersons
    val_gt: GroundTruth
    unlabeled: UnlabeledDataset | None = None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all persons, boxes and keypoints, independent of file locations."""
        unlabeled = f"/{self.unlabeled.fingerprint}" if self.unlabeled is not None else ""
        return f"{self.train.fingerprint}/{self.val.fingerprint}{unlabeled}"

    @property
    def samples(self) -> AugmentedCropDataset | MixedDataset:
        """The dataset of all training samples, with those of `unlabeled`."""
        return self.train if self.unlabeled is None else MixedDataset(self.train, self.unlabeled)


def read_training_data(config: Config, log: Log, is_main: bool = True) -> TrainingData:
    """Reads and checks the datasets of a configuration and logs a summary of each.

    Args:
        config: names the datasets.
        log: prints a message.
        is_main: whether this process is rank 0, which checks that the images can be opened.

    Raises:
        OSError, ValueError: if a dataset is invalid, or the datasets do not match each other.
    """
    image_check: ImageCheck = "once" if is_main and config.data.check_images else "never"

    def read(entry: KeypointSet, file: CocoFile | None = None) -> CocoPersons:
        persons = read_coco(file or entry.annotations, entry.images, config.data.skeleton, image_check)
        log(persons.summary())
        for warning in persons.warnings:
            log(f"  {warning}")
        return persons

    options = config.model.input_size, config.augment, config.data.padding, config.train.seed
    train: AugmentedCropDataset
    if config.data.shards is None:
        train = TopDownTrainDataset([read(entry) for entry in (config.data.train_set, *config.data.extra)], *options)
    else:
        train = ShardTrainDataset(config.data.shards, *options, overrides=config.data.skeleton)
        log("\n  ".join([train.summary(), *train.warnings]))
    val_file = CocoFile.read(config.data.val_set.annotations)
    val = read(config.data.val_set, val_file)
    if val.skeleton.keypoints != train.skeleton.keypoints:
        raise ValueError(
            f"{val.annotations} and {train.source} differ in their keypoints: "
            f"{list(val.skeleton.keypoints)} and {list(train.skeleton.keypoints)}"
        )
    val_gt = GroundTruth.from_coco(val_file, config.data.skeleton)
    check_evaluation(val_gt, config.eval.backend)
    if train.skeleton.upper_body is None and config.augment.half_body_probability > 0:
        log(
            "half-body augmentation is disabled: neither the training set's category nor data.skeleton defines "
            "'upper_body'"
        )
    unlabeled = None
    if config.data.unlabeled:
        entries = config.data.unlabeled
        unlabeled_sets = [
            read_unlabeled(entry.annotations, entry.images, train.skeleton, image_check) for entry in entries
        ]
        for persons in unlabeled_sets:
            log(
                f"{persons.annotations.name}: {len(persons)} persons for the consistency loss; left out: "
                f"{format_reasons(persons.left_out)}"
            )
            for warning in persons.warnings:
                log(f"  {warning}")
        unlabeled = UnlabeledDataset(
            unlabeled_sets, config.model.input_size, config.train.consistency, config.data.padding, config.train.seed
        )
    return TrainingData(train, val, val_gt, unlabeled)


def make_batch_sampler(config: Config, data: TrainingData, rank: int, world_size: int) -> EpochBatchSampler:
    """Creates the batch sampler of one process.

    Raises:
        ValueError: if the processes cannot share an unlabeled batch equally.
    """
    train, size = config.train, len(data.train)
    if data.unlabeled is None:
        return EpochBatchSampler(size, train.batch_size, train.seed, rank, world_size, data.train.shard_sizes)
    unlabeled_batch_size = train.consistency.batch_size or train.batch_size
    if unlabeled_batch_size % world_size:
        raise ValueError(
            f"train.consistency.batch_size={unlabeled_batch_size} is not divisible by the number of processes, "
            f"{world_size}"
        )
    return MixedBatchSampler(
        size,
        train.batch_size,
        train.seed,
        rank,
        world_size,
        data.train.shard_sizes,
        unlabeled_size=len(data.unlabeled),
        unlabeled_batch_size=unlabeled_batch_size,
    )


def build_network(
    config: Config, skeleton: Skeleton, log: Log, weights: Path | None, model_class: type[PoseNet] = PoseNet
) -> PoseNet:
    """Builds the network of a configuration and loads pretrained weights, if given.

    Raises:
        OSError, ValueError: if the network cannot be built, or the weights do not fit.
    """
    model = config.model
    net = create_model(
        model.name,
        num_keypoints=skeleton.num_keypoints,
        num_kernels=model.num_kernels,
        temperature=config.train.temperature.start,
        output=model.output,
        codec=model.codec,
        sigma=model.sigma,
        input_size=model.input_size,
        skeleton=skeleton,
        model_class=model_class,
        **model.options,
    )
    if config.train.equal_kernels:
        make_kernels_equal(net)
    if config.data.padding != DEFAULT_PADDING:
        log(
            f"warning: data.padding={config.data.padding:g}, but PoseEstimator and exported programs pad by "
            f"{DEFAULT_PADDING:g}: there the network is less accurate"
        )
    if net.in_channels not in (1, 3):
        raise ValueError(f"model.options: expected in_channels 1 or 3, got in_channels={net.in_channels}")
    codec = net.codec
    if not codec.has_loss and "heatmaps" not in codec.output_names:
        raise ValueError(
            f"model.codec: expected a codec with heatmaps or a loss of its own, got {codec.name!r} with the outputs "
            f"{', '.join(codec.output_names)}: override `loss`"
        )
    if weights is not None:
        log(f"loaded pretrained weights {load_pretrained(net, weights)}")
        for warning in compare_temperatures(net, config.train.temperature):
            log(warning)
    return net
