"""The keys that pose networks and classifiers share: those of the training loop."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from posedy.config.imports import import_modules
from posedy.config.section import Section


class Experiment(Section):
    """Base class of configurations whose key `imports` names modules of the user."""

    imports: list[str] = Field([])
    """User modules to import first, which register backbones, heads and codecs: [my_package.backbones]. Network files
    record only the registered names."""

    @field_validator("imports")
    @classmethod
    def _import(cls, names: list[str]) -> list[str]:
        import_modules(names)  # the first field: values of other fields may be names that these modules register
        return names


class TemperatureConfig(Section):
    """The schedule of the attention's temperature: linear over `epochs`, then constant (paper, section 4.2)."""

    start: float = Field(30, gt=0)
    """The temperature at the first step."""
    end: float = Field(30, gt=0)
    """The temperature after `epochs`; the paper anneals it to 1 for classification."""
    epochs: int = Field(10, ge=0)
    """The number of epochs of the schedule."""


Optimizer = Literal["adam", "sgd"]
Schedule = Literal["step", "cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class LoopConfig(Section):
    """The part of the training recipe that pose networks and classifiers have in common."""

    epochs: int = Field(210, ge=1)
    """Number of passes over the training set."""
    minutes: float | None = Field(None, gt=0)
    """Limit of the time spent in training steps, in addition to `epochs`: the learning rate schedule follows the
    elapsed time if it is ahead of the steps, and the last epoch may be incomplete. Such a run is not bit-exactly
    reproducible."""
    batch_size: int = Field(128, ge=1)
    """Samples per optimizer step over all devices."""
    accumulation: int = Field(1, ge=1)
    """Number of gradient accumulation steps per batch: the same optimizer step in less memory, except that batch norm
    uses the statistics of each micro-batch."""
    optimizer: Optimizer = "adam"
    """"adam" (AdamW), or "sgd" with a momentum of 0.9."""
    lr: float = Field(1e-3, gt=0)
    """The learning rate before `schedule` and after the warm-up."""
    lr_factors: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """Factors of the learning rate by module name: {backbone: 0.3}; the longest matching name applies. 0 freezes a
    module, including the statistics of its batch norms."""
    attention_lr_factor: float = Field(1.0, gt=0)
    """Factor of the learning rate of the attention of dynamic convolutions, in addition to `lr_factors`. At temperature
    30 attention differs from uniform only if its logits reach about 30, which takes many small steps."""
    equal_kernels: bool = False
    """Start the K kernels of each dynamic convolution equal, in place of independent: the network starts like a static
    one, and its kernels become different by the images that attention gives them. It is for attention that differs
    between images from the first step, `model.options={attention: normalized}`. Loaded weights replace them."""
    schedule: Schedule = "step"
    """The learning rate schedule: "step" divides it by ten at each of `lr_drops`, "cosine" decays it from lr to 0."""
    lr_drops: list[Annotated[int, Field(ge=0)]] | None = None
    """Milestones of the step schedule in epochs; None is the paper's 170 and 200 of 210, scaled to `epochs`."""
    paper_drops: ClassVar[tuple[float, ...]] = (170 / 210, 200 / 210)
    warmup_steps: int = Field(0, ge=0)
    """Number of steps of linear learning rate warm-up."""
    temperature: TemperatureConfig = TemperatureConfig()
    workers: int | None = Field(None, ge=0)
    """Data loader workers per device; None is one per CPU core, at most 8."""
    seed: int = Field(0, ge=0)
    """The seed of initialization, order and augmentation."""
    save_every: int = Field(1, ge=1)
    """Epochs between checkpoints (last.pt); one is always written when a run is stopped, evaluated or done. Increase it
    if an epoch takes only seconds."""
    save_minutes: float | None = Field(None, ge=0)
    """Minutes between checkpoints (last.pt) within an epoch, for epochs that take hours; None disables them."""
    precision: Precision = "fp32"
    """Mixed precision of the forward pass; attention and loss are computed in float32. bf16 about halves a step's time
    on devices that support it (GPUs from Ampere on, CPUs with AMX or AVX512-BF16) and takes ten times as long on
    others. "auto" is bf16 on the former and fp32 on the latter. fp16 (GPUs only) uses loss scaling."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay per step of a moving average of the weights, which is evaluated and saved as best.pt; None disables it.
    0.999 to 0.9998 usually improve AP a little and smooth its curve; use a smaller decay for few steps."""
    weight_decay: float = Field(0, ge=0)
    """Weight decay of convolutions and linear layers, not of norms, biases and attention: decoupled with "adam" (0.01
    to 0.1 reduces overfitting on small datasets), added to the gradient with "sgd"."""
    clip_gradients: float | None = Field(None, gt=0)
    """Maximum norm of the gradients; None disables clipping. 1 to 10 stabilizes training at high learning rates."""
    channels_last: bool = False
    """Train in torch's channels_last format: static networks with 3x3 kernels are 1.8 times as fast on a CPU
    (`mobilenetv2_100-fpn` at 256x192, one thread). Dynamic networks convert between formats and are not faster."""
    freeze_batch_norm: bool = False
    """Freeze the running statistics of batch norm, for fine-tuning with few samples per step."""
    sync_batch_norm: bool = False
    """Synchronize batch norm statistics over all GPUs; useful below about 16 samples per GPU."""
