"""The configuration keys of an experiment with their defaults, which are the paper's recipe."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from posedy.codecs import HeatmapCodec, create_codec
from posedy.config.augmentation import AugmentConfig, ConsistencyConfig
from posedy.config.loop import Experiment, LoopConfig
from posedy.config.section import Section, reject_options
from posedy.geometry import DEFAULT_PADDING
from posedy.models.dynamic_conv import DEFAULT_NUM_KERNELS
from posedy.models.factory import create_model
from posedy.models.meta import meta_device
from posedy.models.pose_net import HeatmapOutput
from posedy.models.registry import default_codec, list_models


class KeypointSet(Section):
    """A COCO file of persons and the folder of its images."""

    annotations: Path
    images: Path


class SkeletonConfig(Section):
    """Properties of the skeleton by keypoint names; they override those of the annotation file."""

    flip_pairs: list[tuple[str, str]] | None = None
    """Pairs swapped by a flip, such as [[left_paw, right_paw]]; None uses the file's, or pairs found by name."""
    limbs: list[tuple[str, str]] | None = None
    """Pairs connected by a line in plots; None uses the file's `skeleton`."""
    sigmas: float | list[float] | dict[str, float] | None = None
    """Sigmas of OKS: one number, a list in the file's order, or by name; None uses the file's, or the mean of COCO's,
    0.067."""
    upper_body: list[str] | None = None
    """The keypoints of the upper body, for half-body augmentation; None uses the file's, if any."""


class DataConfig(Section):
    """Configuration of the datasets; relative paths are relative to the working directory, ~ is the home directory."""

    root: Path = Path("data/coco")
    """A folder with COCO's layout: annotations/, train2017/, val2017/."""
    train_annotations: Path | None = None
    """The COCO keypoint file for training; None is ROOT/annotations/person_keypoints_train2017.json."""
    train_images: Path | None = None
    """The folder of the training images; None is ROOT/train2017."""
    val_annotations: Path | None = None
    """The COCO keypoint file for validation; None is ROOT/annotations/person_keypoints_val2017.json."""
    val_images: Path | None = None
    """The folder of the validation images; None is ROOT/val2017."""
    extra: list[KeypointSet] = Field([])
    """Further training sets with the same keypoints."""
    shards: Path | None = None
    """A folder of `python -m tools.lab.person_shards`, or the index in it: the training set in place of
    `train_annotations`, `train_images` and `extra`."""
    unlabeled: list[KeypointSet] = Field([])
    """Training sets of persons without keypoints (COCO files; only the boxes are read) for a consistency loss, see
    `train.consistency`."""
    boxes: Path | None = None
    """Person boxes for testing (COCO results of a detector); None uses ground truth boxes."""
    padding: float = Field(DEFAULT_PADDING, gt=0)
    """Factor on the size of person boxes, in training and testing."""
    check_images: bool = True
    """Whether to check all image files before training or testing. A dataset that passed is not checked again until
    its annotation file or image folder changes; `posedy check` always checks all images."""
    skeleton: SkeletonConfig = SkeletonConfig()

    @model_validator(mode="after")
    def _check_shards(self) -> "DataConfig":
        given = [name for name in ("train_annotations", "train_images", "extra") if getattr(self, name)]
        if self.shards is not None and given:
            reset = " ".join(f"data.{name}={'[]' if name == 'extra' else 'null'}" for name in given)
            raise ValueError(f"shards: {self.shards} takes the place of {', '.join(given)}, got both: set {reset}")
        return self

    @property
    def train_set(self) -> KeypointSet:
        """The annotation file and the image folder of the training set, without the sets of `extra`."""
        return KeypointSet(
            annotations=self.train_annotations or self.root / "annotations/person_keypoints_train2017.json",
            images=self.train_images or self.root / "train2017",
        )

    @property
    def val_set(self) -> KeypointSet:
        """The annotation file and the image folder of the validation set."""
        return KeypointSet(
            annotations=self.val_annotations or self.root / "annotations/person_keypoints_val2017.json",
            images=self.val_images or self.root / "val2017",
        )


# arguments of `create_model` that other keys set
_RESERVED_OPTIONS = {
    "name": "set model.name",
    "num_kernels": "set model.num_kernels",
    "output": "set model.output",
    "input_size": "set model.input_size",
    "temperature": "set train.temperature",
    "codec": "set model.codec",
    "sigma": "set model.sigma",
    "num_keypoints": "the annotation file defines the keypoints",
    "skeleton": "the annotation file defines the keypoints",
}


class ModelConfig(Section):
    """Configuration of the network and of the codec of its outputs."""

    name: str = "dy_mobilenetv2_050-dy_bneck"
    """The network, `[dy_]BACKBONE-[dy_]HEAD`: a name that `posedy models` lists, or of registered parts."""
    input_size: tuple[int, int] = (192, 256)
    """The size (width, height) of the crops in pixels, each divisible by 32."""
    num_kernels: int = Field(DEFAULT_NUM_KERNELS, ge=1)
    """Number K of kernels of each dynamic convolution; static networks accept the default only."""
    options: dict[str, Any] = Field({})
    """Options of the architecture, such as {depth: 0.7} or {dynamic_layers: [project]}; see `create_model`."""
    output: HeatmapOutput = "linear"
    """The activation of the heatmaps: "linear" (the paper's), "softmax" over the pixels of each heatmap, for
    `train.loss: cross_entropy`, or "sigmoid" of each heatmap pixel, for `train.loss: binary_cross_entropy`."""
    codec: str = "msra"
    """The codec of keypoints and outputs: "msra", the paper's, rounds targets to heatmap pixels and decodes with a
    quarter offset; "unbiased" does not round, and decodes by matching the target (Huang et al., CVPR 2020; Zhang et
    al., CVPR 2020), which helps most with small crops or uncertain heatmaps; "simcc", the default of the head `simcc`,
    classifies each coordinate (Li et al., ECCV 2022) and has a loss of its own. A network file records the codec."""
    sigma: float | None = Field(None, gt=0)
    """Standard deviation of the targets in heatmap pixels, for "simcc" in bins of half a crop pixel; None is 2 (6) for
    crops of height 256, and proportional to the height. A network file records sigma."""
    weights: Path | None = None
    """Initial weights: a preset, the name of a pretrained network, or a checkpoint or .safetensors file, of the same
    network or of its static or dynamic counterpart (for other keypoints, the output layer is initialized randomly); or,
    for the backbone, a checkpoint of `posedy train-classifier`, or torchvision's or timm's ImageNet weights of
    MobileNetV2 or ResNet-18."""

    @model_validator(mode="before")
    @classmethod
    def _set_codec(cls, values: Any) -> Any:
        """Sets an omitted codec to that of the head."""
        if isinstance(values, dict) and values.get("codec") is None:
            name = values.get("name")
            return {**values, "codec": default_codec(name if isinstance(name, str) else "")}
        return values

    @model_validator(mode="after")
    def _check_model(self) -> "ModelConfig":
        reject_options(self.options, _RESERVED_OPTIONS)
        if self.name not in list_models() or self.options or self.num_kernels != DEFAULT_NUM_KERNELS:
            with meta_device():
                create_model(
                    self.name, num_kernels=self.num_kernels, **self.options
                )  # raises an error with the nearest valid name
        if any(side <= 0 or side % 32 for side in self.input_size):
            raise ValueError(f"input_size: expected (width, height), each divisible by 32, got {self.input_size}")
        create_codec(self.codec, self.input_size, self.sigma)  # raises an error with the nearest valid name
        return self


Loss = Literal["mse", "cross_entropy", "binary_cross_entropy"]


class TrainConfig(LoopConfig):
    """Configuration of a training run, by default the paper's recipe."""

    loss: Loss = "mse"
    """The loss of the heatmaps: "mse" (the paper's), or "cross_entropy" and "binary_cross_entropy" with the
    `model.output` that belongs to it."""
    teacher: Path | None = None
    """The teacher for distillation (a checkpoint, a .safetensors file or the name of a pretrained network): its
    heatmaps or distributions are mixed into the targets. It may have any architecture, but must have the same
    keypoints, `model.output`, `model.codec`, `model.sigma` and `model.input_size`. If its codec has other outputs, such
    as a teacher with heatmaps of a student with the codec "simcc", targets of its decoded keypoints are mixed in."""
    teacher_weight: float = Field(0.5, gt=0, le=1)
    """The weight of the teacher in the targets; that of decoded keypoints is multiplied by their scores."""
    consistency: ConsistencyConfig = ConsistencyConfig()
    cuda_graph: bool = False
    """Record a whole step as a CUDA graph and replay it: these networks launch thousands of small kernels per step,
    which takes longer than their computation. On an H200, dy_mobilenetv2_050-dy_bneck at 256x192 in bf16 with batch
    size 128 trains on 2,100 instead of 960 samples/s. It requires one process with a CUDA GPU, no accumulation, and
    fp32 or bf16; a step's memory stays allocated between steps."""

    @model_validator(mode="after")
    def _check_cuda_graph(self) -> "TrainConfig":
        if self.cuda_graph and (self.accumulation > 1 or self.precision == "fp16" or self.optimizer != "adam"):
            raise ValueError(
                "cuda_graph: true requires accumulation: 1, precision: fp32 or bf16 and optimizer: adam, got "
                f"accumulation: {self.accumulation}, precision: {self.precision} and optimizer: {self.optimizer}"
            )
        return self


class EvalConfig(Section):
    """Configuration of the evaluation protocol."""

    every: int = Field(10, ge=1)
    """Epochs between evaluations during training; the last epoch is always evaluated."""
    flip: bool = True
    """Flip test: average the heatmaps of the crop and of the flipped crop."""
    batch_size: int = Field(64, ge=1)
    """Crops per batch of the evaluation; it does not change the metrics."""
    box_threshold: float = Field(0.0, ge=0, le=1)
    """Minimum score of detector boxes."""
    keypoint_threshold: float = 0.2
    """A pose's score is the box score times the mean of the keypoint scores above this threshold."""
    nms: float | None = Field(0.9, gt=0, le=1)
    """OKS threshold of the pose NMS; None (or off) disables it."""
    backend: Literal["pycocotools", "hotcoco"] = "pycocotools"
    """The implementation of COCOeval: hotcoco (`pip install 'posedy[fast]'`) gives the same metrics much faster."""

    @field_validator("nms", mode="before")
    @classmethod
    def _convert_off(cls, value: Any) -> Any:
        return None if value is False else value


class Config(Experiment):
    """The configuration of an experiment."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _check_loss(self) -> "Config":
        outputs: dict[Loss, HeatmapOutput] = {
            "mse": "linear",
            "cross_entropy": "softmax",
            "binary_cross_entropy": "sigmoid",
        }
        codec = create_codec(self.model.codec, self.model.input_size, self.model.sigma)
        if codec.has_loss and len(codec.output_names) > 1 and (self.train.loss, self.model.output) != ("mse", "linear"):
            raise ValueError(
                f"model.codec: {codec.name} has a loss of its own and no heatmaps, got train.loss: {self.train.loss} "
                f"and model.output: {self.model.output}: leave both out"
            )
        if outputs[self.train.loss] != self.model.output:
            raise ValueError(
                "expected train.loss: cross_entropy with model.output: softmax, binary_cross_entropy with sigmoid, or "
                f"mse with linear, got train.loss: {self.train.loss} and model.output: {self.model.output}"
            )
        return self

    @model_validator(mode="after")
    def _check_consistency(self) -> "Config":
        if not self.data.unlabeled:
            if self.train.consistency != ConsistencyConfig():
                raise ValueError(
                    "train.consistency requires persons without keypoints: set data.unlabeled to a list of "
                    "{annotations: FILE, images: FOLDER}"
                )
            return self
        codec = create_codec(self.model.codec, self.model.input_size, self.model.sigma)
        if not isinstance(codec, HeatmapCodec) or codec.output_names != ("heatmaps",) or codec.has_loss:
            raise ValueError(
                f"data.unlabeled requires a codec of heatmaps without a loss of its own, got model.codec: {codec.name}"
            )
        if self.train.cuda_graph:
            raise ValueError("data.unlabeled is unsupported with train.cuda_graph: true: set it to false")
        return self
