"""Image classifiers: a backbone with its last layer, and what is needed to build it again."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class Classifier(nn.Module):
    """A network that predicts the logits of classes from images.

    Args:
        backbone: (N, C, H, W) -> logits (N, num_classes), from `create_backbone(..., num_classes=...)`.
        name: the name of the backbone.
        classes: the names of the classes.
        input_size: default (width, height) of the images; other sizes are supported, too.
        options: the other arguments of `create_classifier`, to create the network again.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        name: str,
        classes: Sequence[str],
        input_size: tuple[int, int],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.name = name
        self.classes = tuple(classes)
        self.input_size = (input_size[0], input_size[1])
        self.options = dict(options)

    @property
    def in_channels(self) -> int:
        """The number of input channels C."""
        return self.options.get("in_channels", 3)

    @property
    def num_classes(self) -> int:
        """The number of classes that the network distinguishes."""
        return len(self.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Predicts the logits (N, num_classes) of normalized RGB images (N, C, H, W)."""
        return self.backbone(images)
