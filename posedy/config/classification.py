"""The configuration keys of a classifier with their defaults, the paper's recipe for DY-ResNet (section 5.1)."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from posedy.config.loop import Experiment, LoopConfig, Optimizer, TemperatureConfig
from posedy.config.section import Section, reject_options
from posedy.models.dynamic_conv import DEFAULT_NUM_KERNELS
from posedy.models.factory import create_backbone
from posedy.models.meta import meta_device


class ImageFolderConfig(Section):
    """The dataset: ROOT/train/CLASS/IMAGE and ROOT/val/CLASS/IMAGE, the layout of torchvision's ImageFolder."""

    root: Path = Path("data/imagenet")
    """The folder with train/ and the validation images."""
    val_folder: str = "val"
    """The folder of ROOT with the validation images, such as a part of the training images for choices."""


# arguments of `create_classifier` that other keys set, or the data
_RESERVED_OPTIONS = {
    "name": "set model.name",
    "num_kernels": "set model.num_kernels",
    "dropout": "set model.dropout",
    "input_size": "set model.input_size",
    "temperature": "set train.temperature",
    "classes": "the folders define the classes",
    "num_classes": "the folders define the classes",
    "in_channels": "the images have 3 channels",
}


class ClassifierModelConfig(Section):
    """Configuration of a classification network: a backbone with its classifier."""

    name: str = "dy_resnet18"
    """One of `list_backbones()`, or `[dy_]timm/NAME`."""
    input_size: int = Field(224, gt=0, multiple_of=32)
    """The side of the square crops in pixels."""
    num_kernels: int = Field(DEFAULT_NUM_KERNELS, ge=1)
    """Number K of kernels of each dynamic convolution; static networks accept the default only."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability with which a feature is set to 0 before the last layer."""
    options: dict[str, Any] = Field({})
    """Options of the architecture, such as {depth: 0.7} or {dynamic_layers: [project]}; see `create_model`."""
    weights: Path | None = None
    """Initial weights: a checkpoint of a classifier; for other classes the last layer is initialized randomly."""

    @model_validator(mode="after")
    def _check_model(self) -> "ClassifierModelConfig":
        reject_options(self.options, _RESERVED_OPTIONS)
        with meta_device():
            create_backbone(self.name, self.num_kernels, num_classes=2, dropout=self.dropout, **self.options)
        return self


class ClassifierAugmentConfig(Section):
    """Random augmentation of the training images."""

    scale: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.08, 1.0)
    """The smallest and the largest share of an image's area in a crop (RandomResizedCrop)."""
    flip_probability: float = Field(0.5, ge=0, le=1)
    """Probability of a flip."""
    mixup: float = Field(0.0, ge=0)
    """Parameter alpha of mixup (Zhang et al., ICLR 2018); 0 disables it."""

    @field_validator("scale")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"expected the smallest share before the largest, got {list(value)}")
        return value


class ClassifierTrainConfig(LoopConfig):
    """Configuration of a training run of a classifier."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(256, ge=1)
    """Samples per optimizer step over all devices."""
    optimizer: Optimizer = "sgd"
    lr: float = Field(0.1, gt=0)
    lr_drops: list[Annotated[int, Field(ge=0)]] | None = None
    """Milestones of the step schedule in epochs; None is the paper's 30, 60 and 90 of 100, scaled to `epochs`."""
    paper_drops: ClassVar[tuple[float, ...]] = (0.3, 0.6, 0.9)
    weight_decay: float = Field(1e-4, ge=0)
    temperature: TemperatureConfig = TemperatureConfig(end=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that all classes have in equal parts."""


class ClassifierEvalConfig(Section):
    """The evaluation protocol: the center of the resized image, top-1 and top-5."""

    every: int = Field(1, ge=1)
    """Epochs between evaluations during training; the last epoch is always evaluated."""
    batch_size: int = Field(64, ge=1)
    """Images per batch of the evaluation; it does not change the metrics."""
    resize: float = Field(256 / 224, ge=1)
    """The shorter side of the resized image relative to the crop: 256 for 224."""


class ClassifierConfig(Experiment):
    """The configuration of a classifier that is trained."""

    data: ImageFolderConfig = ImageFolderConfig()
    model: ClassifierModelConfig = ClassifierModelConfig()
    augment: ClassifierAugmentConfig = ClassifierAugmentConfig()
    train: ClassifierTrainConfig = ClassifierTrainConfig()
    eval: ClassifierEvalConfig = ClassifierEvalConfig()
