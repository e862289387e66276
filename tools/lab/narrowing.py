"""A narrow MobileNetV2 that computes nearly what a wide, trained one does: ImageNet weights for widths that have none.

The maps between blocks are linear in what follows, so a narrow block need not keep channels of them: it keeps those
directions P of a map x that the expansions W reading it see most of, the leading ones of

    W^T W = L^T L,    L cov(x) L^T = U diag(e) U^T,    P = U_k^T L

Hidden channels are cut one after the other, always those without which the projection P y is explained best by the rest
(backward elimination). Depthwise kernels of what is left are copied, and each 1x1 convolution is fitted anew, from the
first to the last, to make of the narrow network's own maps x_s what the wide one makes of its maps:

    min over w of sum (w x_s - t)^2 + ridge |w|^2,    t = P (x - mean x) for projections, less x_s where it is added;
                                                      the wide network's values before the activation for expansions

so that a layer makes up for what those before it lost. The mean of x is of no use, since the norms of the next layers
take it off; where P leads along a direction of little variance it would be many times the rest. Batch norms get the
statistics of what comes in and the mean and deviation of what should come out. Channels are chosen for reconstruction
as by He et al. (ICCV 2017).

ImageNet weights for a MobileNetV2 of a width that has none, from those of a wider one.

    python -m tools.lab.narrowing mobilenet_v2.pth --photos data/real/train/images --out mobilenetv2_050.safetensors

writes a file for `model.weights=`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from posedy.files import atomic_write
from posedy.geometry import image_to_crop_matrix, padded_region, warp_crop
from posedy.images import image_paths, read_image
from posedy.models.backbones.mobilenetv2 import MobileNetV2
from posedy.models.blocks import InvertedResidual
from posedy.models.pose_net import normalize_crops
from posedy.models.registry import create_model
from posedy.models.transfer import load_pretrained, to_torchvision
from tools.lab.entry import run_and_exit

_POSITIONS = 50_000  # of a map that take part in a fit
_RIDGE = 1e-3  # of the mean variance
_AT_ONCE = 24  # this part of the hidden channels is cut at a time


@torch.no_grad()
def narrow(wide: MobileNetV2, slim: MobileNetV2, images: Tensor) -> float:
    """Fills a static network with what a wider one of the same depth computes, in evaluation mode.

    Args:
        wide: trained; stays as it is but for the mode.
        slim: to fill.
        images: normalized photos (N, 3, H, W) of the kind that the network is for, a few hundred. Maps of all of them
            are in memory at once: about 10 GB for 224 of 192x160.

    Returns:
        The share of the variance of the last layer (before its norm's activation) that is lost, from 0 to 1.

    Raises:
        ValueError: if the networks differ in more than width, `slim` is the wider one, or one is dynamic.
    """
    _check(wide, slim)
    wide.eval()
    slim.eval()
    wide_blocks, slim_blocks = _blocks(wide), _blocks(slim)
    maps = [wide.stem(images)]
    for block in wide_blocks:
        maps.append(block(maps[-1]))
    directions = _directions(wide, slim, maps)

    first = wide_blocks[0]
    (wide_stem, wide_norm), (slim_stem, slim_norm) = _parts(wide.stem), _parts(slim.stem)
    kept = _cut(_sample(first.depthwise(maps[0])), directions[0] @ _kernel(first.project), slim_stem.out_channels)
    slim_stem.weight.copy_(wide_stem.weight[kept])
    slim_norm.load_state_dict(
        {name: values[kept] if values.ndim else values for name, values in wide_norm.state_dict().items()}
    )
    x = slim.stem(images)
    for index, (wide_block, slim_block) in enumerate(zip(wide_blocks, slim_blocks, strict=True)):
        P = directions[index]
        hidden = wide_block.expand(maps[index])
        depthwise, norm = _parts(slim_block.depthwise)
        if isinstance(wide_block.expand, nn.Sequential):
            kept = _cut(_sample(wide_block.depthwise(hidden)), P @ _kernel(wide_block.project), depthwise.out_channels)
            _fit(slim_block.expand, x, _before_activation(wide_block.expand, maps[index])[kept])
        depthwise.weight.copy_(_parts(wide_block.depthwise)[0].weight[kept])
        slim_hidden = slim_block.expand(x)
        _set_norm(norm, _sample(depthwise(slim_hidden)), _before_activation(wide_block.depthwise, hidden)[kept])
        target = P @ _centered(_sample(maps[index + 1]))
        if slim_block.is_residual:
            target = target - _sample(x)
        _fit(slim_block.project, slim_block.depthwise(slim_hidden), target)
        x = slim_block(x)
    return _fit(slim.last, x, _before_activation(wide.last, maps[-1]))


def _check(wide: MobileNetV2, slim: MobileNetV2) -> None:
    expected, given = (
        {name: tensor.shape for name, tensor in net.state_dict().items() if not name.startswith("classifier.")}
        for net in (wide, slim)
    )
    are_plain = all(isinstance(net, MobileNetV2) for net in (wide, slim))
    if not are_plain or expected.keys() != given.keys() or any("attention" in name for name in given):
        raise ValueError("narrowing goes from a static MobileNetV2 to a static one of the same depth")
    for name, shape in given.items():
        if any(size > largest for size, largest in zip(shape, expected[name], strict=True)):
            raise ValueError(f"{name} is {tuple(shape)} in the narrow network, {tuple(expected[name])} in the wide one")


def _sample(x: Tensor) -> Tensor:
    """The channels (C, M) of a map (N, C, h, w) at M positions, the same for all maps of one size."""
    values = x.permute(1, 0, 2, 3).flatten(1)
    count = values.shape[1]
    if count <= _POSITIONS:
        return values
    return values[:, torch.randperm(count, generator=torch.Generator().manual_seed(0))[:_POSITIONS]]


def _centered(values: Tensor) -> Tensor:
    """Channels (C, M) less the mean of each."""
    return values - values.mean(dim=1, keepdim=True)


def _blocks(net: MobileNetV2) -> list[InvertedResidual]:
    return [block for block in net.blocks if isinstance(block, InvertedResidual)]


def _parts(layer: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A layer's convolution and its norm."""
    assert isinstance(layer, nn.Sequential)
    conv, norm = layer[0], layer[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, norm


def _before_activation(layer: nn.Module, x: Tensor) -> Tensor:
    """What a convolution and its norm make of a map, sampled (C, M)."""
    conv, norm = _parts(layer)
    return _sample(norm(conv(x)))


def _kernel(layer: nn.Module) -> Tensor:
    """The matrix of a 1x1 convolution, its norm's scale included."""
    conv, norm = _parts(layer)
    assert norm.running_var is not None
    return conv.weight[:, :, 0, 0] * (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None]


def _directions(wide: MobileNetV2, slim: MobileNetV2, maps: list[Tensor]) -> list[Tensor]:
    """P (narrow, wide) of the output of each block: one for all whose outputs are added to each other."""
    stages: list[list[int]] = []
    for index, block in enumerate(_blocks(wide)):
        if block.is_residual:
            stages[-1].append(index)
        else:
            stages.append([index])
    readers = [_kernel(layer) for layer in (*(block.expand for block in _blocks(wide)[1:]), wide.last)]
    directions = []
    for stage in stages:
        x = torch.cat([_sample(maps[index + 1]) for index in stage], dim=1)
        read = torch.cat([readers[index] for index in stage])
        values, vectors = torch.linalg.eigh(read.T @ read)
        # what nothing reads keeps a little weight, so that no direction is lost where all are kept
        L = values.clamp(min=float(values.max()) * 1e-4).sqrt()[:, None] * vectors.T
        _, U = torch.linalg.eigh(L @ torch.cov(x) @ L.T)
        count = _parts(_blocks(slim)[stage[0]].project)[0].out_channels
        P = U[:, -count:].T @ L
        variance = (P @ torch.cov(x) @ P.T).diagonal()
        # where a map has fewer dimensions than channels, rounding leaves variances below 0
        P /= variance.clamp(min=float(variance.max()) * 1e-6).sqrt()[:, None]
        directions += [P] * len(stage)
    return directions


def _cut(hidden: Tensor, readers: Tensor, count: int) -> Tensor:
    """The indices of `count` channels of (C, M) from which readers (R, C) of all of them are best explained."""
    x = _centered(hidden).double()
    gram = x @ x.T
    cross = gram @ readers.double().T
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    kept = torch.arange(len(gram))
    while len(kept) > count:
        inverse = torch.linalg.inv(gram[kept][:, kept])
        loss = (inverse @ cross[kept]).square().sum(dim=1) / inverse.diagonal()  # by cutting one channel, exactly
        at_once = max(1, min(len(kept) - count, len(gram) // _AT_ONCE))
        kept = kept[loss.argsort()[at_once:]].sort().values
    return kept


def _fit(layer: nn.Module, x: Tensor, target: Tensor) -> float:
    """Fits a 1x1 convolution and its norm to make a target (R, M) of a map; returns the share of variance lost."""
    conv, norm = _parts(layer)
    inputs = _sample(x)
    centered, wanted = _centered(inputs).double(), _centered(target).double()
    gram = centered @ centered.T
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    kernel = torch.linalg.solve(gram + ridge, centered @ wanted.T).T
    conv.weight.copy_(kernel[:, :, None, None])
    made = kernel.float() @ inputs
    _set_norm(norm, made, _centered(made) + target.mean(dim=1, keepdim=True))
    return float((kernel @ centered - wanted).square().sum() / wanted.square().sum())


def _set_norm(norm: nn.BatchNorm2d, incoming: Tensor, outgoing: Tensor) -> None:
    """Gives a norm the statistics of what comes in (C, M) and the mean and deviation of what should come out."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(incoming.mean(dim=1))
    norm.running_var.copy_(incoming.var(dim=1))
    norm.weight.copy_(outgoing.std(dim=1))
    norm.bias.copy_(outgoing.mean(dim=1))


_SIZE = (160, 192)
_MIDDLE = 0.75  # of a photo, so that crops have little border


def read_crops(photos: list[Path], input_size: tuple[int, int]) -> torch.Tensor:
    """The middle of each photo, normalized (N, 3, H, W)."""
    width, height = input_size
    crops = []
    for photo in photos:
        image = read_image(photo)
        box = [0, 0, image.shape[1], image.shape[0]]
        matrix = image_to_crop_matrix(*padded_region(box, width / height, _MIDDLE), input_size)
        crops.append(warp_crop(image, matrix, input_size))
    return normalize_crops(torch.from_numpy(np.stack(crops)))


def main(argv: list[str] | None = None) -> None:
    """Parses, reads, narrows, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="ImageNet weights of the wide network, torchvision's or timm's")
    parser.add_argument(
        "--wide", default="mobilenetv2_100", help="the backbone that they are of (default: %(default)s)"
    )
    parser.add_argument("--backbone", default="mobilenetv2_050", help="the narrow one (default: %(default)s)")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos to fit on")
    parser.add_argument("--count", type=int, default=224, help="how many of them (default: %(default)s; 45 MB each)")
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors")
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        raise ValueError(f"--count is at least 1, got {arguments.count}")
    photos = image_paths([str(arguments.photos)])
    chosen = photos[:: max(1, len(photos) // arguments.count)][: arguments.count]
    wide, slim = (create_model(f"{name}-bneck").eval() for name in (arguments.wide, arguments.backbone))
    print(load_pretrained(wide, arguments.weights))
    lost = narrow(wide.backbone, slim.backbone, read_crops(chosen, _SIZE))
    with atomic_write(arguments.out) as temporary:
        save_file(to_torchvision(slim.backbone), temporary)
    print(f"wrote {arguments.out}: {lost:.1%} of the last layer's variance on {len(chosen)} photos is lost")


if __name__ == "__main__":
    run_and_exit(main, "narrowing")
