"""What a training needs before its first step: the data sets and the network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from posedy.config import Config, KeypointSet
from posedy.data.coco import CocoPersons, GroundTruth, read_coco
from posedy.data.coco_file import CocoFile
from posedy.data.datasets import TopDownTrainDataset
from posedy.data.image_check import ImageCheck
from posedy.data.loaders import EpochBatchSampler
from posedy.models.dynamic_conv import temperatures
from posedy.models.pose_net import PoseNet
from posedy.models.registry import create_model
from posedy.models.transfer import load_pretrained
from posedy.skeleton import Skeleton

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The sets of a training.

    Attributes:
        crops: what is trained on.
        val: what AP is measured on.
        truth: the same for COCOeval.
    """

    crops: TopDownTrainDataset
    val: CocoPersons
    truth: GroundTruth

    @property
    def fingerprint(self) -> str:
        """Changes with any person, box or keypoint of the sets, and not with the place of their files."""
        return f"{self.crops.fingerprint}/{self.val.fingerprint}"


def read_training_data(config: Config, say: Say, is_main: bool = True) -> TrainingData:
    """Reads and checks the sets of a configuration, and says what they are.

    Args:
        config: names the sets.
        say: prints.
        is_main: whether this is the one process of several that opens the images to check them.

    Raises:
        OSError, ValueError: if a set cannot be used, or the sets do not fit each other.
    """
    image_check: ImageCheck = "once" if is_main and config.data.check_images else "never"

    def read(entry: KeypointSet, file: CocoFile | None = None) -> CocoPersons:
        persons = read_coco(file or entry.annotations, entry.images, config.data.skeleton, image_check)
        say(persons.summary())
        for warning in persons.warnings:
            say(f"  warning: {warning}")
        return persons

    sets = [read(entry) for entry in (config.data.train_set, *config.data.extra)]
    crops = TopDownTrainDataset(sets, config.model.input_size, config.augment, config.eval.padding, config.train.seed)
    val_file = CocoFile.read(config.data.val_set.annotations)
    val = read(config.data.val_set, val_file)
    if val.skeleton.keypoints != crops.skeleton.keypoints:
        raise ValueError(
            f"{val.annotations} and {sets[0].annotations} differ in their keypoints: "
            f"{list(val.skeleton.keypoints)} and {list(crops.skeleton.keypoints)}"
        )
    truth = GroundTruth.from_coco(val_file, config.data.skeleton)
    if not truth.labeled:
        raise ValueError(f"{val.annotations}: AP is undefined, num_keypoints is 0 for every person")
    if crops.skeleton.upper_body is None and config.augment.half_body_probability > 0:
        say("half body is off: neither the training set's category nor data.skeleton names an 'upper_body'")
    return TrainingData(crops, val, truth)


def make_order(config: Config, crops: TopDownTrainDataset, rank: int, world_size: int) -> EpochBatchSampler:
    """Who comes when, for one of several processes."""
    train = config.train
    return EpochBatchSampler(len(crops), train.batch_size, train.seed, rank, world_size)


def build_network(config: Config, skeleton: Skeleton, say: Say, weights: Path | None) -> PoseNet:
    """Builds the network of a configuration, from existing weights if there are any to start from.

    Raises:
        OSError, ValueError: if it cannot be built, or the weights do not fit.
    """
    model = config.model
    net = create_model(
        model.name,
        skeleton.num_keypoints,
        model.num_kernels,
        temperature=config.train.temperature.start,
        output=model.output,
        coding=model.coding,
        sigma=model.sigma,
        input_size=model.input_size,
        skeleton=skeleton,
        **model.options,
    )
    if net.in_channels not in (1, 3):
        raise ValueError(f"model.options: crops of photos have 3 channels, got in_channels={net.in_channels} (3 or 1)")
    if weights is not None:
        say(f"starting from {load_pretrained(net, weights)}")
        _compare_temperatures(net, config, say)
    return net


def _compare_temperatures(net: PoseNet, config: Config, say: Say) -> None:
    """Says so if training begins at another temperature than the weights were trained at: it undoes their attention."""
    begins = config.train.temperature.start
    for held in sorted(temperatures(net) - {begins}):
        say(
            f"warning: these weights were trained at temperature {held:g}, training begins at {begins:g}: "
            f"train.temperature.start={held:g} train.temperature.end={held:g} goes on where they were"
        )
