"""Every setting of an experiment with its default, the paper's recipe, and its meaning."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from posedy.codecs import Coding
from posedy.models.pose_net import HeatmapOutput
from posedy.models.registry import DEFAULT_NUM_KERNELS, create_model, list_models


def as_section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field of this annotation is, if it is one."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_slip(cls, value: Any, info: ValidationInfo) -> Any:
        """Empty sections are sections; pydantic would take true for the number 1."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if value is None and as_section(kind) is not None:
            return {}
        items = value if isinstance(value, list | tuple) else [value]
        if kind is not bool and any(isinstance(item, bool) for item in items):
            raise ValueError(f"is not a switch, got {value!r} (YAML reads on and yes as true, off and no as false)")
        return value

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        try:
            return value.expanduser() if isinstance(value, Path) else value
        except RuntimeError as error:
            raise ValueError(f"{value}: {error}") from error


class KeypointSet(_Section):
    """A COCO keypoint file and the folder of its photos."""

    annotations: Path
    images: Path


class SkeletonConfig(_Section):
    """What the annotation file does not say about its keypoints, by their names; it wins over the file."""

    flip_pairs: list[tuple[str, str]] | None = None
    """Pairs that a mirror exchanges, such as [[left_paw, right_paw]]; None: the file's, or those whose names say so."""
    limbs: list[tuple[str, str]] | None = None
    """Pairs that drawings join by a line; None is the file's `skeleton`."""
    sigmas: float | list[float] | dict[str, float] | None = None
    """Of OKS: one for all, a list in the file's order, or by name; None: the file's, or the mean of COCO's (0.067)."""
    upper_body: list[str] | None = None
    """The keypoints of the upper body, for half-body augmentation; None: the file's, or none."""


class DataConfig(_Section):
    """Where the data set is. Relative paths count from the working directory; ~ is the home directory."""

    root: Path = Path("data/coco")
    """COCO's tree: annotations/, train2017/, val2017/."""
    train_annotations: Path | None = None
    """None is ROOT/annotations/person_keypoints_train2017.json."""
    train_images: Path | None = None
    """None is ROOT/train2017."""
    val_annotations: Path | None = None
    """None is ROOT/annotations/person_keypoints_val2017.json."""
    val_images: Path | None = None
    """None is ROOT/val2017."""
    extra: list[KeypointSet] = []
    """More training sets of the same keypoints."""
    boxes: Path | None = None
    """Person boxes for testing (COCO results of a detector); None is the ground truth's."""
    check_images: bool = True
    """Open every image of the sets before training or testing to check it. A set whose check found nothing is not
    opened again until its annotation file or image folder changes; `posedy check` always opens all images."""
    skeleton: SkeletonConfig = SkeletonConfig()

    @property
    def train_set(self) -> KeypointSet:
        """The first training set."""
        return KeypointSet(
            annotations=self.train_annotations or self.root / "annotations/person_keypoints_train2017.json",
            images=self.train_images or self.root / "train2017",
        )

    @property
    def val_set(self) -> KeypointSet:
        """The set that AP is measured on."""
        return KeypointSet(
            annotations=self.val_annotations or self.root / "annotations/person_keypoints_val2017.json",
            images=self.val_images or self.root / "val2017",
        )


# arguments of `create_model` that have a place of their own
_OPTIONS_ELSEWHERE = {
    "name": "it is model.name",
    "num_kernels": "it is model.num_kernels",
    "output": "it is model.output",
    "input_size": "it is model.input_size",
    "temperature": "it is train.temperature",
    "coding": "it is model.coding",
    "sigma": "it is model.sigma",
    "num_keypoints": "the annotation file has the keypoints",
    "skeleton": "the annotation file has the keypoints",
}


class ModelConfig(_Section):
    """The network and the coding of its heatmaps."""

    name: str = "dy_mobilenetv2_050-dy_bneck"
    input_size: tuple[int, int] = (192, 256)
    """(width, height) of the crops, divisible by 32."""
    num_kernels: int = Field(DEFAULT_NUM_KERNELS, ge=1)
    """K of each dynamic convolution; static networks take the default only."""
    options: dict[str, Any] = {}
    """Of the architecture, such as {depth: 0.7} or {dynamic_layers: [project]}; `create_model` documents them."""
    output: HeatmapOutput = "linear"
    """"linear" is the paper's; "softmax" makes each heatmap a distribution, which `train.loss: cross_entropy` needs;
    "sigmoid" makes each cell a probability, which `train.loss: binary_cross_entropy` needs."""
    coding: Coding = "paper"
    """How keypoints become heatmaps: "paper" rounds targets to cells and decodes quarters of a cell; "unbiased" does
    neither, and decodes where a target matches best (Huang et al., CVPR 2020; Zhang et al., CVPR 2020), which should
    help most where crops are small or heatmaps unsure. A network keeps the coding that it was trained with."""
    sigma: float | None = Field(None, gt=0)
    """Standard deviation of the targets in heatmap pixels; None is 2 at 256 pixels of height, and in proportion. A
    network keeps the sigma that it was trained with."""
    weights: Path | None = None
    """What to start from: a checkpoint or .safetensors file of the same network or of its static or dynamic twin (with
    other keypoints only the layer of the heatmaps is fresh), or ImageNet weights of torchvision's or timm's MobileNetV2
    or ResNet-18 for the backbone."""

    @model_validator(mode="after")
    def _names_a_network(self) -> "ModelConfig":
        for option in self.options:
            if option in _OPTIONS_ELSEWHERE:
                raise ValueError(f"options: {option} is no option of the architecture; {_OPTIONS_ELSEWHERE[option]}")
        if self.name not in list_models() or self.options or self.num_kernels != DEFAULT_NUM_KERNELS:
            with torch.device("meta"):
                create_model(self.name, num_kernels=self.num_kernels, **self.options)  # raises with the nearest name
        if any(side <= 0 or side % 32 for side in self.input_size):
            raise ValueError(f"input_size is (width, height), each divisible by 32, got {self.input_size}")
        return self


class AugmentConfig(_Section):
    """How training crops vary (paper, section 6, and Sun et al., CVPR 2019)."""

    flip: float = Field(0.5, ge=0, le=1)
    """Probability of mirroring."""
    scale_std: float = Field(0.35, ge=0)
    """The crop's size varies by N(1, scale_std), clipped to scale_range."""
    scale_range: tuple[float, float] = (0.65, 1.35)
    rotation_std: float = Field(45, ge=0)
    """Degrees: N(0, rotation_std), clipped to +-rotation_max."""
    rotation_max: float = Field(45, ge=0, le=180)
    rotation_probability: float = Field(0.6, ge=0, le=1)
    half_body_probability: float = Field(0.3, ge=0, le=1)
    """Of showing only the upper or lower body of persons with enough labeled keypoints."""
    photometric: list[dict[str, Any]] = []
    """More albumentations transforms of the crop: {transform: NAME, and its arguments}."""

    @model_validator(mode="after")
    def _range_is_ordered(self) -> "AugmentConfig":
        low, high = self.scale_range
        if not 0 < low <= high:
            raise ValueError(f"scale_range is (smallest, largest), both positive, got {self.scale_range}")
        return self


class TemperatureConfig(_Section):
    """The attention's temperature over the epochs: linear from start to end, then constant (paper, section 4.2)."""

    start: float = Field(30, gt=0)
    end: float = Field(30, gt=0)
    epochs: int = Field(10, ge=0)


Loss = Literal["mse", "cross_entropy", "binary_cross_entropy"]
Schedule = Literal["step", "cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class TrainConfig(_Section):
    """The optimization. Defaults are the paper's."""

    epochs: int = Field(210, ge=1)
    minutes: float | None = Field(None, gt=0)
    """A limit of the time spent in training steps, whatever `epochs` says: the schedule follows the clock where that is
    ahead of the steps, and the last epoch is cut short. Such a run cannot be repeated to the bit."""
    batch_size: int = Field(128, ge=1)
    """Persons per step of the optimizer, over all devices together."""
    accumulation: int = Field(1, ge=1)
    """Parts that each device's share of a batch is worked through in: the same step in less memory (but batch norm sees
    a part at a time)."""
    lr: float = Field(1e-3, gt=0)
    lr_factors: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Factors on the learning rate of parts of the network, by the names of modules: {backbone: 0.3}; the longest name
    that holds a layer wins. 0 freezes a part, with the statistics of its batch norms."""
    schedule: Schedule = "step"
    """"step": the rate falls to a tenth at each of `lr_drops`; "cosine": half a cosine from lr to 0."""
    lr_drops: list[Annotated[int, Field(ge=0)]] | None = None
    """Epochs after which the rate falls; None is the paper's 170 and 200 of 210, in proportion."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the rate rises linearly from 0."""
    loss: Loss = "mse"
    temperature: TemperatureConfig = TemperatureConfig()
    workers: int | None = Field(None, ge=0)
    """Processes that load crops, for each device; None is one for each CPU core, at most 8."""
    seed: int = Field(0, ge=0)
    save_every: int = Field(1, ge=1)
    """Epochs between writings of last.pt; it is always written when a run is stopped, evaluated or done. More than 1
    where an epoch takes seconds."""
    save_minutes: float | None = Field(None, ge=0)
    """Minutes after which last.pt is written within an epoch too, for epochs that take hours; None is off."""
    precision: Precision = "fp32"
    """Mixed precision of the forward pass; attention and loss stay in float32. bf16 about halves a step's time on
    devices that compute in it (GPUs from Ampere on, CPUs with AMX or AVX512-BF16) and takes ten times as long on
    others. "auto" is bf16 on the former and fp32 on the latter. fp16 (GPUs only) needs loss scaling, which is done."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay per step of a moving average of the weights, which is then what is evaluated and saved as best.pt; None is
    off. 0.999 to 0.9998 usually bring a little AP and a steadier curve; the average of few steps forgets faster."""
    weight_decay: float = Field(0, ge=0)
    """Decoupled (AdamW), of the kernels of convolutions and linear layers; norms, biases and attention are spared. 0.01
    to 0.1 helps against overfitting on small data sets."""
    clip_gradients: float | None = Field(None, gt=0)
    """Largest norm of all gradients together; None is off. 1 to 10 keeps bad batches from harm at large rates."""
    channels_last: bool = False
    """Train in torch's channels_last format: static networks with 3x3 kernels see 1.8 times as many persons a second on
    a CPU (`mobilenetv2_100-fpn` at 256x192, one thread). Dynamic networks convert between formats and gain nothing."""
    freeze_batch_norm: bool = False
    """Batch norm uses and keeps the statistics that it started with: for fine-tuning with few persons per step."""
    teacher: Path | None = None
    """A trained network to learn from beside the labels (a checkpoint, a .safetensors file or a shipped network's
    name): its heatmaps are mixed into the targets. It may be of any architecture, but must have this one's keypoints,
    `model.output`, `model.coding`, `model.sigma` and `model.input_size`."""
    teacher_weight: float = Field(0.5, gt=0, le=1)
    """The teacher's share of the targets."""
    cuda_graph: bool = False
    """Record a whole step once as a CUDA graph and replay it: these networks launch thousands of small kernels a step,
    which takes Python longer than the GPU works on them. On an H200, dy_mobilenetv2_050-dy_bneck at 256x192 in bf16,
    128 persons a step, went from 960 persons/s to 2,100. For one process with a CUDA GPU, without accumulation, in fp32
    or bf16; a step's memory stays taken between steps."""
    sync_batch_norm: bool = False
    """Batch norm takes its statistics over all GPUs: worth its time below about 16 persons per GPU."""

    @model_validator(mode="after")
    def _step_fits_cuda_graph(self) -> "TrainConfig":
        if self.cuda_graph and (self.accumulation > 1 or self.precision == "fp16"):
            raise ValueError(
                "cuda_graph: true goes with accumulation: 1 and precision: fp32 or bf16, "
                f"got accumulation: {self.accumulation} and precision: {self.precision}"
            )
        return self


class EvalConfig(_Section):
    """How AP is measured."""

    every: int = Field(10, ge=1)
    """Epochs between evaluations during training; the last epoch is always evaluated."""
    flip: bool = True
    """Average the heatmaps of the crop and its mirror."""
    batch_size: int = Field(64, ge=1)
    padding: float = Field(1.25, gt=0)
    """Of the boxes, at test time and in training."""
    box_threshold: float = Field(0.0, ge=0, le=1)
    """Detector boxes with a lower score are not used."""
    keypoint_threshold: float = 0.2
    """A person's score is box score x mean of the keypoint scores over this."""
    nms: float | None = Field(0.9, gt=0, le=1)
    """OKS above which the lower-scored of two poses is suppressed; None (or off) switches suppression off."""
    backend: Literal["pycocotools", "hotcoco"] = "pycocotools"
    """What computes COCO's numbers: hotcoco (`pip install 'posedy[fast]'`) gives the same many times as fast."""

    @field_validator("nms", mode="before")
    @classmethod
    def _off_is_none(cls, value: Any) -> Any:
        return None if value is False else value


class Config(_Section):
    """An experiment."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _loss_fits_output(self) -> "Config":
        outputs: dict[Loss, HeatmapOutput] = {
            "mse": "linear",
            "cross_entropy": "softmax",
            "binary_cross_entropy": "sigmoid",
        }
        if outputs[self.train.loss] != self.model.output:
            raise ValueError(
                "train.loss: cross_entropy and model.output: softmax belong together, and so do binary_cross_entropy "
                "and sigmoid, mse and linear, "
                f"got train.loss: {self.train.loss} and model.output: {self.model.output}"
            )
        return self

    def to_yaml(self) -> str:
        """The whole configuration as YAML that `load_config` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
