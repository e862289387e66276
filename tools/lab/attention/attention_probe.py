"""Looking at the attention of a dynamic network, and putting another in its place.

Source: Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020, section 5.2, Tables 3 and 4.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from posedy.models.dynamic_conv import KernelAttention
from posedy.models.pose_net import PoseNet

Aggregation = Literal["attention", "average", "max", "shuffled over kernels", "shuffled across images"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)

_Replacement = Callable[[KernelAttention, Tensor], Tensor]
_HEAD = "head"


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """A dynamic convolution of a network, as its attention.

    Attributes:
        name: of the convolution within the network.
        group: the stride of its input to the crop, such as "16", in the backbone; "head" in the head.
        num_kernels: K.
        attention: the module.
    """

    name: str
    group: str
    num_kernels: int
    attention: KernelAttention


@torch.no_grad()
def attention_layers(net: PoseNet) -> list[AttentionLayer]:
    """The dynamic convolutions of a network in the order in which a forward pass meets them; none if it is static.

    Strides are measured by a forward pass at the network's input size: at 224x224, Table 4's resolutions 112^2 to 7^2
    are the strides 2 to 32.

    Args:
        net: a network in evaluation mode.

    Raises:
        ValueError: if the network is in training mode, where a forward pass changes its statistics.
    """
    if net.training:
        raise ValueError("attention is measured in evaluation mode, the network is in training mode: call net.eval()")
    width, height = net.input_size
    names = {
        module: name.removesuffix(".attention")
        for name, module in net.named_modules()
        if isinstance(module, KernelAttention)
    }
    in_head = set(net.head.modules())
    layers: list[AttentionLayer] = []

    def measure(module: KernelAttention, inputs: tuple[Tensor, ...], attention: Tensor) -> None:
        group = _HEAD if module in in_head else str(height // inputs[0].shape[-2])
        layers.append(AttentionLayer(names[module], group, attention.shape[1], module))

    first = next(net.parameters())
    with _hooked(names, measure):
        net(torch.zeros(1, net.in_channels, height, width, dtype=first.dtype, device=first.device))
    return layers


@contextmanager
def replaced_attention(layers: Sequence[AttentionLayer], aggregation: Aggregation, seed: int = 0) -> Iterator[None]:
    """Within the block, the layers aggregate their kernels by something else than their attention (Table 3).

    "attention" is the attention as it is. "average" gives all kernels the same weight. "max" gives all weight to the
    kernel with the largest. "shuffled over kernels" deranges the weights of each image in each layer, so that no
    kernel keeps its own: sum_k pi_j W_k with j != k, all derangements equally likely. "shuffled across images" deranges
    the batch: each image takes the attention of another one, the same in all layers of a forward pass; a batch of one
    image takes that of an image of the last batch that had more.

    Softmax attention sums to one, and so does what replaces it: 1/K for the average. Sigmoid attention does not;
    "average" and "max" keep the sum that the image had, because the scale of a kernel is not what is asked about.

    Forward passes draw anew: with flip-averaging, which passes a batch and then its mirror, an image and its mirror
    have partners of their own, and neither is ever the other's.

    Args:
        layers: of one network, all or some of `attention_layers`.
        aggregation: one of `AGGREGATIONS`.
        seed: of the shuffles.

    Raises:
        ValueError: if the aggregation is unknown, if a layer with one kernel is to be shuffled over kernels, or (from
            the forward pass) if there has been no batch of more than one image to shuffle across.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation is one of {list(AGGREGATIONS)}, got {aggregation!r}")
    if aggregation == "attention":
        yield
        return
    if aggregation == "shuffled over kernels" and (single := [layer for layer in layers if layer.num_kernels < 2]):
        raise ValueError(f"weights are shuffled over two kernels or more, {single[0].name} has {single[0].num_kernels}")
    replace = _replacement(aggregation, torch.Generator().manual_seed(seed))
    with _hooked([layer.attention for layer in layers], lambda module, _, pi: replace(module, pi)):
        yield


def derangements(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Permutations (count, size) that leave nothing in its place, all of them equally likely.

    Raises:
        ValueError: if the size is under two: a single thing has no other place.
    """
    if size < 2:
        raise ValueError(f"only two things or more can be deranged, got {size}")
    drawn = torch.rand(count, size, generator=generator).argsort(dim=1)
    while (wrong := (drawn == torch.arange(size)).any(dim=1)).any():
        drawn[wrong] = torch.rand(int(wrong.sum()), size, generator=generator).argsort(dim=1)
    return drawn


@dataclass(frozen=True)
class AttentionStatistics:
    """What the attention of a layer did over many images.

    Attributes:
        layer: the layer's name.
        group: its group, see `AttentionLayer`.
        entropy: mean over images of -sum_k pi_k ln pi_k / ln K, of weights normalized to sum to one: 1 is flat, 0 is
            one kernel alone.
        entropy_p10: 10th percentile over images of the same.
        entropy_p90: its 90th percentile.
        spread: standard deviation of pi_k over images, mean over k: 0 where all images have the same attention.
        largest: mean over images of the largest weight.
        mean_attention: (K,) mean of pi_k over images.
    """

    layer: str
    group: str
    entropy: float
    entropy_p10: float
    entropy_p90: float
    spread: float
    largest: float
    mean_attention: tuple[float, ...]


class AttentionRecord:
    """The attention of layers in all forward passes while `recorded_attention` was on."""

    def __init__(self, layers: Sequence[AttentionLayer]) -> None:
        self.layers = list(layers)
        self._batches: dict[KernelAttention, list[Tensor]] = {layer.attention: [] for layer in layers}

    def add(self, module: KernelAttention, attention: Tensor) -> None:
        """Keeps the attention (N, K) of a batch."""
        self._batches[module].append(attention.detach().cpu())

    def attention(self, layer: AttentionLayer) -> Tensor:
        """The attention (N, K) of a layer for all images so far, in their order; an image's mirror is one more image.

        Raises:
            ValueError: if there was no forward pass.
        """
        batches = self._batches[layer.attention]
        if not batches:
            raise ValueError(f"no attention of {layer.name} was recorded: there was no forward pass")
        return torch.cat(batches)

    def statistics(self) -> list[AttentionStatistics]:
        """The statistics of each layer.

        Raises:
            ValueError: if there was no forward pass, or if a layer has one kernel, where entropy says nothing.
        """
        return [_statistics(layer, self.attention(layer).double()) for layer in self.layers]


@contextmanager
def recorded_attention(layers: Sequence[AttentionLayer]) -> Iterator[AttentionRecord]:
    """Within the block, keeps the attention of the layers for each image that passes (4 K bytes each, on the CPU)."""
    record = AttentionRecord(layers)
    with _hooked([layer.attention for layer in layers], lambda module, _, pi: record.add(module, pi)):
        yield record


@contextmanager
def _hooked(modules: Iterable[KernelAttention], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replacement(aggregation: Aggregation, generator: torch.Generator) -> _Replacement:
    if aggregation == "average":
        return lambda _, pi: pi.mean(dim=1, keepdim=True).expand_as(pi)
    if aggregation == "max":
        return lambda _, pi: F.one_hot(pi.argmax(dim=1), pi.shape[1]) * pi.sum(dim=1, keepdim=True)
    if aggregation == "shuffled over kernels":
        return lambda _, pi: pi.gather(1, derangements(pi.shape[0], pi.shape[1], generator).to(pi.device))
    return _AcrossImages(generator)


class _AcrossImages:
    """Gives each image another one's attention; a layer that is met again tells that a new forward pass began."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.met: set[nn.Module] = set()
        self.partners = torch.zeros(0, dtype=torch.int64)
        self.of_many: dict[nn.Module, Tensor] = {}

    def __call__(self, module: KernelAttention, pi: Tensor) -> Tensor:
        if not self.met or module in self.met:
            self.met.clear()
            self.partners = self._draw(module, len(pi))
        self.met.add(module)
        if len(pi) > 1:
            self.of_many[module] = pi
        return self.of_many[module][self.partners.to(pi.device)]

    def _draw(self, module: KernelAttention, batch_size: int) -> Tensor:
        if batch_size > 1:
            return derangements(1, batch_size, self.generator)[0]
        # The last batch of one image may be the mirror of this one, that of more images never is.
        if module not in self.of_many:
            raise ValueError(
                "attention cannot be shuffled across images: so far each batch had one image, and it has no other to "
                "take attention from; give batches of two images or more"
            )
        return torch.randint(len(self.of_many[module]), (1,), generator=self.generator)


def _statistics(layer: AttentionLayer, pi: Tensor) -> AttentionStatistics:
    if layer.num_kernels < 2:
        raise ValueError(f"{layer.name} has one kernel, and attention over one kernel has nothing to say")
    share = pi / pi.sum(dim=1, keepdim=True)
    entropy = torch.special.entr(share).sum(dim=1) / torch.log(torch.tensor(layer.num_kernels, dtype=pi.dtype))
    low, high = torch.quantile(entropy, torch.tensor([0.1, 0.9], dtype=pi.dtype)).tolist()
    return AttentionStatistics(
        layer=layer.name,
        group=layer.group,
        entropy=entropy.mean().item(),
        entropy_p10=low,
        entropy_p90=high,
        spread=pi.std(dim=0, correction=0).mean().item(),
        largest=pi.amax(dim=1).mean().item(),
        mean_attention=tuple(pi.mean(dim=0).tolist()),
    )
