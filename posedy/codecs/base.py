"""The base class of codecs, and their registry.

A codec defines the meaning of a network's outputs: it encodes keypoints as training targets, decodes outputs to
keypoints, and merges the outputs of a crop with those of the flipped crop. No other module interprets outputs.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from posedy.registration import nearest_name, register

Outputs = Mapping[str, Tensor]
"""Outputs of a network by name, see `Codec.output_names`."""


@dataclass(frozen=True)
class Codec(ABC):
    """Encodes keypoints as targets and decodes the outputs of a network to keypoints.

    To add a codec, write a subclass and register it:

        @posedy.register_codec("regression")
        class RegressionCodec(posedy.Codec):
            output_names = ("coordinates",)

    with the methods `encode`, `decode`, `merge_flipped` and `loss`. For heatmaps subclass `HeatmapCodec`
    (`heatmap.py`), which has them all but three short functions. A codec of posedy itself is imported by
    `codecs/__init__.py`, too.

    A network returns one tensor for each of `output_names`: the tensor, or a tuple in their order.

    Attributes:
        input_size: (W, H) of the crop in pixels, divisible by 32.
        sigma: standard deviation of a target, in a unit of the codec; None is the codec's default.

    Raises:
        ValueError: if the size is not divisible by 32 or sigma is not positive.
    """

    input_size: tuple[int, int] = (192, 256)
    sigma: float | None = None

    name: ClassVar[str] = ""
    """The codec's name in configurations and files; `register_codec` sets it."""
    output_names: ClassVar[tuple[str, ...]] = ("heatmaps",)
    """The names of the network's outputs."""
    flip_shift: ClassVar[int] = 0
    """Heatmap pixels by which heatmaps of a flipped crop are shifted after they are flipped back; part of the
    protocol."""

    def __post_init__(self) -> None:
        if (
            not isinstance(self.input_size, Sequence)
            or len(self.input_size) != 2
            or any(not isinstance(side, int) or side <= 0 or side % 32 for side in self.input_size)
        ):
            raise ValueError(f"input_size is (width, height), each divisible by 32, got {self.input_size}")
        if self.sigma is None:
            return
        is_number = isinstance(self.sigma, int | float) and not isinstance(self.sigma, bool)
        if not (is_number and math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma must be a positive number, got {self.sigma!r}")

    @property
    def target_sigma(self) -> float | None:
        """The standard deviation of a target: sigma, or the codec's default."""
        return self.sigma

    @classmethod
    def check_outputs(cls) -> None:
        """Checks the class attribute `output_names`; `register_codec` calls it.

        Raises:
            TypeError: if it is not a tuple of names, or the methods of the class do not support these outputs.
        """
        names: object = cls.output_names
        if not isinstance(names, tuple | list) or not names or not all(isinstance(each, str) for each in names):
            raise TypeError(
                f"expected output_names of {cls.__name__} to be a tuple such as ('heatmaps',), got {names!r}"
            )

    @abstractmethod
    def encode(self, keypoints: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes keypoints as training targets.

        Args:
            keypoints: (N, K, 2) in crop pixels.
            labeled: (N, K), true or nonzero where a keypoint is labeled.

        Returns:
            Targets (N, K, ...) float32, and weights (N, K) float32: 0 for keypoints that the loss ignores.
        """

    @abstractmethod
    def decode(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Decodes outputs to keypoints; with tensor operations only, so that the codec can be exported.

        Args:
            outputs: tensors of N crops by name.

        Returns:
            Keypoints (N, K, 2) float32 in crop pixels and scores (N, K) float32.
        """

    @abstractmethod
    def merge_flipped(self, outputs: Outputs, flipped: Outputs, flip_permutation: Sequence[int]) -> dict[str, Tensor]:
        """Averages the outputs of crops with those of the flipped crops (x' = W - 1 - x).

        Args:
            outputs: tensors of N crops by name.
            flipped: tensors of the flipped crops.
            flip_permutation: K indices, `Skeleton.flip_permutation`.
        """

    @property
    def has_loss(self) -> bool:
        """Whether the codec overrides `loss`."""
        return type(self).loss is not Codec.loss

    def loss(self, outputs: Outputs, targets: Tensor, weights: Tensor) -> Tensor:
        """Computes the loss of a batch, a sum over labeled keypoints, in place of `train.loss`, which needs heatmaps.

        Args:
            outputs: tensors of N crops by name.
            targets: (N, K, ...) of `encode`.
            weights: (N, K) of `encode`.
        """
        raise NotImplementedError(f"the codec {self.name!r} has no loss of its own")

    def soft_targets(self, outputs: Outputs) -> Tensor | None:
        """Converts the outputs of a teacher to targets (N, K, ...), as `encode` returns them, for distillation.

        None, the default, is for outputs of another form: the keypoints that they decode to are encoded instead.

        Args:
            outputs: tensors of N crops by name.
        """
        return None


_CODECS: dict[str, type[Codec]] = {}
_CodecClass = TypeVar("_CodecClass", bound=type[Codec])


def register_codec(name: str) -> Callable[[_CodecClass], _CodecClass]:
    """Registers a codec: a class decorator.

    Args:
        name: the codec's name in `create_model(codec=...)`, configurations and files.

    Raises:
        TypeError: if the class is not a subclass of `Codec` with all its methods and with `output_names`, or a heatmap
            codec with other outputs does not override the methods that read the heatmaps.
        ValueError: if the name is invalid, or another class has it.
    """
    register_class = register(_CODECS, "codec", name, r"[\w-]+")

    def add(codec: _CodecClass) -> _CodecClass:
        if not isinstance(codec, type) or not issubclass(codec, Codec):
            raise TypeError(f"expected a subclass of posedy.Codec, got {codec!r}")
        if inspect.isabstract(codec):
            missing = ", ".join(sorted(codec.__abstractmethods__))
            raise TypeError(f"expected a codec with the methods {missing}, {codec.__name__} lacks them")
        codec.check_outputs()
        register_class(codec)
        codec.name = name
        return codec

    return add


def list_codecs() -> list[str]:
    """Lists the names of the codecs, sorted."""
    return sorted(_CODECS)


def create_codec(name: str, input_size: tuple[int, int], sigma: float | None = None) -> Codec:
    """Creates a codec by its name.

    Args:
        name: one of `list_codecs()`.
        input_size: (W, H) of the crop in pixels, divisible by 32.
        sigma: standard deviation of a target in the codec's unit; None is the codec's default.

    Raises:
        ValueError: if no codec has the name, or the size or the sigma is invalid.
    """
    if name not in _CODECS:
        nearest = nearest_name(name, list_codecs())
        raise ValueError(
            f"unknown codec {name!r}; the nearest name is {nearest!r}, all are {list_codecs()}. A codec of your own "
            "must be imported first: imports: [MODULE] in the configuration, --import MODULE on the command line"
        )
    return _CODECS[name](input_size, sigma)
