"""Records and replaces the attention of a dynamic network.

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
from posedy.models.network_file import Network
from posedy.models.pose_net import PoseNet

Aggregation = Literal["attention", "average", "max", "shuffled over kernels", "shuffled across images"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)

_Replacement = Callable[[KernelAttention, Tensor], Tensor]
_HEAD = "head"


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """A dynamic convolution and its attention.

    Attributes:
        name: module name of the convolution.
        group: the stride of its input relative to the crop, such as "16", or "head" for layers of the head.
        num_kernels: K.
        attention: the attention module.
    """

    name: str
    group: str
    num_kernels: int
    attention: KernelAttention


@torch.no_grad()
def attention_layers(net: Network) -> list[AttentionLayer]:
    """Returns the dynamic convolutions of a network in execution order; none for a static network.

    Strides are measured in a forward pass at the network's input size. The resolutions 112^2 to 7^2 of Table 4 (input
    224x224) are strides 2 to 32.

    Args:
        net: a network in evaluation mode.

    Raises:
        ValueError: if the network is in training mode, in which a forward pass updates batch norm statistics.
    """
    if net.training:
        raise ValueError("expected a network in evaluation mode, got training mode: call net.eval()")
    width, height = net.input_size
    names = {
        module: name.removesuffix(".attention")
        for name, module in net.named_modules()
        if isinstance(module, KernelAttention)
    }
    in_head = set(net.head.modules()) if isinstance(net, PoseNet) else set()
    layers: list[AttentionLayer] = []

    def measure(module: KernelAttention, inputs: tuple[Tensor, ...], attention: Tensor) -> None:
        group = _HEAD if module in in_head else str(height // inputs[0].shape[-2])
        layers.append(AttentionLayer(names[module], group, attention.shape[1], module))

    first = next(net.parameters())
    with _hooked(names, measure):
        net(torch.zeros(1, net.in_channels, height, width, dtype=first.dtype, device=first.device))
    return layers


@contextmanager
def replace_attention(layers: Sequence[AttentionLayer], aggregation: Aggregation, seed: int = 0) -> Iterator[None]:
    """Replaces the attention of the layers by another kernel aggregation within the block (Table 3).

    - "attention": unchanged.
    - "average": equal weights.
    - "max": all weight on the kernel with the largest weight.
    - "shuffled over kernels": a uniformly random derangement of the weights of each image and layer, so that no kernel
      keeps its own weight: sum_k pi_j W_k with j != k.
    - "shuffled across images": a derangement of the batch: each image gets the attention of another image, the same one
      in all layers of a forward pass. A batch of one image uses an image of the last larger batch.

    The replacement has the same sum of weights as the original. This matters for sigmoid attention, whose weights do
    not sum to one: only the choice of kernels is changed, not their scale.

    Every forward pass samples new shuffles. In the flip test, which passes a batch and then its flipped copy, an image
    and its flipped copy get different partners, and never each other.

    Args:
        layers: all or some of the `attention_layers` of one network.
        aggregation: one of `AGGREGATIONS`.
        seed: seed of the shuffles.

    Raises:
        ValueError: if the aggregation is unknown, if a layer with one kernel is shuffled over kernels, or, in the
            forward pass, if no batch of at least two images has been seen for shuffling across images.
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"expected aggregation to be one of {list(AGGREGATIONS)}, got {aggregation!r}")
    if aggregation == "attention":
        yield
        return
    if aggregation == "shuffled over kernels" and (single := [layer for layer in layers if layer.num_kernels < 2]):
        raise ValueError(
            f"shuffling over kernels needs at least 2 kernels, {single[0].name} has {single[0].num_kernels}"
        )
    replace = _replacement(aggregation, torch.Generator().manual_seed(seed))
    with _hooked([layer.attention for layer in layers], lambda module, _, pi: replace(module, pi)):
        yield


def derangements(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Samples `count` uniformly random permutations (count, size) without fixed points.

    Raises:
        ValueError: if the size is below 2.
    """
    if size < 2:
        raise ValueError(f"a derangement needs at least 2 elements, got {size}")
    permutations = torch.rand(count, size, generator=generator).argsort(dim=1)
    while (has_fixed_point := (permutations == torch.arange(size)).any(dim=1)).any():
        permutations[has_fixed_point] = torch.rand(int(has_fixed_point.sum()), size, generator=generator).argsort(dim=1)
    return permutations


@dataclass(frozen=True)
class AttentionStatistics:
    """Statistics of the attention of a layer over images.

    Attributes:
        layer: the layer's name.
        group: its group, see `AttentionLayer`.
        entropy: mean over images of -sum_k pi_k ln pi_k / ln K, of weights normalized to sum to one: 1 is uniform, 0 is
            a single kernel.
        entropy_p10: 10th percentile of the entropy over images.
        entropy_p90: 90th percentile of the entropy over images.
        spread: standard deviation of pi_k over images, averaged over k: 0 if all images have the same attention.
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
    """The attention of layers in the forward passes within a `record_attention` block."""

    def __init__(self, layers: Sequence[AttentionLayer]) -> None:
        self.layers = list(layers)
        self._batches: dict[KernelAttention, list[Tensor]] = {layer.attention: [] for layer in layers}

    def add(self, module: KernelAttention, attention: Tensor) -> None:
        """Stores the attention (N, K) of a batch."""
        self._batches[module].append(attention.detach().cpu())

    def attention(self, layer: AttentionLayer) -> Tensor:
        """Returns the attention (N, K) of a layer for all images so far, in order; a flipped image is another image.

        Raises:
            ValueError: if there was no forward pass.
        """
        batches = self._batches[layer.attention]
        if not batches:
            raise ValueError(f"no attention of {layer.name} was recorded: run a forward pass first")
        return torch.cat(batches)

    def statistics(self) -> list[AttentionStatistics]:
        """Returns the statistics of each layer.

        Raises:
            ValueError: if there was no forward pass, or if a layer has one kernel, whose entropy is undefined.
        """
        return [_statistics(layer, self.attention(layer).double()) for layer in self.layers]


@contextmanager
def record_attention(layers: Sequence[AttentionLayer]) -> Iterator[AttentionRecord]:
    """Records the attention of the layers within the block, on the CPU (4 K bytes per image and layer)."""
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
    return _ImageShuffler(generator)


class _ImageShuffler:
    """Gives each image the attention of another image; a repeated layer marks the start of a new forward pass."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.visited: set[nn.Module] = set()
        self.partners = torch.zeros(0, dtype=torch.int64)
        self.last_attention: dict[nn.Module, Tensor] = {}  # of the last batch of at least two images

    def __call__(self, module: KernelAttention, pi: Tensor) -> Tensor:
        if not self.visited or module in self.visited:
            self.visited.clear()
            self.partners = self._sample_partners(module, len(pi))
        self.visited.add(module)
        if len(pi) > 1:
            self.last_attention[module] = pi
        return self.last_attention[module][self.partners.to(pi.device)]

    def _sample_partners(self, module: KernelAttention, batch_size: int) -> Tensor:
        if batch_size > 1:
            return derangements(1, batch_size, self.generator)[0]
        # not from the last batch if that has one image: it may be the flipped copy of this one
        if module not in self.last_attention:
            raise ValueError(
                "shuffling attention across images needs a batch of at least 2 images before any batch of 1 image"
            )
        return torch.randint(len(self.last_attention[module]), (1,), generator=self.generator)


def _statistics(layer: AttentionLayer, pi: Tensor) -> AttentionStatistics:
    if layer.num_kernels < 2:
        raise ValueError(f"attention statistics need at least 2 kernels, {layer.name} has {layer.num_kernels}")
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
