"""Fits a narrow MobileNetV2 to a wide, trained one: ImageNet weights for widths without published weights.

The feature maps between blocks enter the following layers linearly. Therefore a narrow block keeps, instead of
channels of a map x, the directions P of x with the largest contribution to the expansions W that read it, the first of

    W^T W = L^T L,    L cov(x) L^T = U diag(e) U^T,    P = U_k^T L

Hidden channels are removed one after the other by backward elimination: always the channel whose removal increases the
least-squares error of the projection P y least. Depthwise kernels of the remaining channels are copied. Each 1x1
convolution is refitted, from the first layer to the last, to map the narrow network's maps x_s to the wide network's:

    min over w of sum (w x_s - t)^2 + ridge |w|^2,    t = P (x - mean x) for projections, minus x_s in residual blocks;
                                                      the wide network's pre-activations for expansions

so that each layer compensates for errors of the layers before it. The mean of x is not fitted: the norms of the next
layers subtract it, and along directions P of small variance it would dominate the target. Batch norms get the
statistics of their input and the mean and standard deviation of the target. Channel selection by reconstruction error
follows He et al. (ICCV 2017).

    python -m tools.lab.narrowing mobilenet_v2.pth --images data/real/train/images --out mobilenetv2_050.safetensors

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
from posedy.image_paths import image_paths
from posedy.images import read_image
from posedy.models.backbones.mobilenetv2 import MobileNetV2
from posedy.models.blocks import InvertedResidual
from posedy.models.factory import create_model
from posedy.models.pose_net import normalize_crops
from posedy.models.transfer import load_pretrained, to_torchvision
from tools.lab.entry import run_and_exit

_POSITIONS = 50_000  # sampled positions of a map per fit
_RIDGE = 1e-3  # in units of the mean variance
_STEPS = 24  # each elimination step removes 1/24 of the hidden channels


@torch.no_grad()
def narrow(wide: MobileNetV2, slim: MobileNetV2, images: Tensor) -> float:
    """Sets the weights of a static network to approximate a wider one of the same depth in evaluation mode.

    Args:
        wide: the trained network; only its mode changes.
        slim: the network to fit.
        images: a few hundred normalized images (N, 3, H, W) from the network's domain. The maps of all of them are in
            memory at once: about 10 GB for 224 images of 192x160.

    Returns:
        The fraction of the variance of the last layer (before the activation) that is lost, from 0 to 1.

    Raises:
        ValueError: if the networks differ in more than width, `slim` is wider, or one is dynamic.
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
    kept = _select_channels(
        _sample(first.depthwise(maps[0])), directions[0] @ _kernel(first.project), slim_stem.out_channels
    )
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
            values, readers = _sample(wide_block.depthwise(hidden)), P @ _kernel(wide_block.project)
            kept = _select_channels(values, readers, depthwise.out_channels)
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
    wide_shapes, slim_shapes = (
        {name: tensor.shape for name, tensor in net.state_dict().items() if not name.startswith("classifier.")}
        for net in (wide, slim)
    )
    are_mobilenets = all(isinstance(net, MobileNetV2) for net in (wide, slim))
    if (
        not are_mobilenets
        or wide_shapes.keys() != slim_shapes.keys()
        or any("attention" in name for name in slim_shapes)
    ):
        raise ValueError("expected two static MobileNetV2 of the same depth")
    for name, shape in slim_shapes.items():
        if any(size > largest for size, largest in zip(shape, wide_shapes[name], strict=True)):
            raise ValueError(
                f"{name}: expected at most {tuple(wide_shapes[name])} in the narrow network, got {tuple(shape)}"
            )


def _sample(x: Tensor) -> Tensor:
    """Samples the channels (C, M) of a map (N, C, h, w) at M positions, the same for all maps of one size."""
    values = x.permute(1, 0, 2, 3).flatten(1)
    count = values.shape[1]
    if count <= _POSITIONS:
        return values
    return values[:, torch.randperm(count, generator=torch.Generator().manual_seed(0))[:_POSITIONS]]


def _centered(values: Tensor) -> Tensor:
    """Subtracts the mean of each channel of (C, M)."""
    return values - values.mean(dim=1, keepdim=True)


def _blocks(net: MobileNetV2) -> list[InvertedResidual]:
    return [block for block in net.blocks if isinstance(block, InvertedResidual)]


def _parts(layer: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Returns the convolution and the norm of a layer."""
    assert isinstance(layer, nn.Sequential)
    conv, norm = layer[0], layer[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, norm


def _before_activation(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns the sampled output (C, M) of a layer's convolution and norm."""
    conv, norm = _parts(layer)
    return _sample(norm(conv(x)))


def _kernel(layer: nn.Module) -> Tensor:
    """Returns the matrix of a 1x1 convolution, including the scale of its norm."""
    conv, norm = _parts(layer)
    assert norm.running_var is not None
    return conv.weight[:, :, 0, 0] * (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None]


def _directions(wide: MobileNetV2, slim: MobileNetV2, maps: list[Tensor]) -> list[Tensor]:
    """Returns P (narrow, wide) for the output of each block; blocks of one residual stage share it."""
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
        # unread directions keep a small weight, so that nothing is lost at full width
        L = values.clamp(min=float(values.max()) * 1e-4).sqrt()[:, None] * vectors.T
        _, U = torch.linalg.eigh(L @ torch.cov(x) @ L.T)
        count = _parts(_blocks(slim)[stage[0]].project)[0].out_channels
        P = U[:, -count:].T @ L
        variance = (P @ torch.cov(x) @ P.T).diagonal()
        # rounding makes variances negative if a map has a lower rank than its number of channels
        P /= variance.clamp(min=float(variance.max()) * 1e-6).sqrt()[:, None]
        directions += [P] * len(stage)
    return directions


def _select_channels(hidden: Tensor, readers: Tensor, count: int) -> Tensor:
    """Returns the indices of the `count` channels of (C, M) that best reconstruct the output of readers (R, C)."""
    x = _centered(hidden).double()
    gram = x @ x.T
    cross = gram @ readers.double().T
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    kept = torch.arange(len(gram))
    while len(kept) > count:
        inverse = torch.linalg.inv(gram[kept][:, kept])
        loss = (inverse @ cross[kept]).square().sum(dim=1) / inverse.diagonal()  # exact for the removal of one channel
        removed = max(1, min(len(kept) - count, len(gram) // _STEPS))
        kept = kept[loss.argsort()[removed:]].sort().values
    return kept


def _fit(layer: nn.Module, x: Tensor, target: Tensor) -> float:
    """Fits a 1x1 convolution and its norm to a target (R, M); returns the fraction of variance lost."""
    conv, norm = _parts(layer)
    inputs = _sample(x)
    centered, centered_target = _centered(inputs).double(), _centered(target).double()
    gram = centered @ centered.T
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    kernel = torch.linalg.solve(gram + ridge, centered @ centered_target.T).T
    conv.weight.copy_(kernel[:, :, None, None])
    outputs = kernel.float() @ inputs
    _set_norm(norm, outputs, _centered(outputs) + target.mean(dim=1, keepdim=True))
    return float((kernel @ centered - centered_target).square().sum() / centered_target.square().sum())


def _set_norm(norm: nn.BatchNorm2d, inputs: Tensor, target: Tensor) -> None:
    """Sets a norm's statistics to those of its input (C, M), and its scale and shift to those of the target."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(inputs.mean(dim=1))
    norm.running_var.copy_(inputs.var(dim=1))
    norm.weight.copy_(target.std(dim=1))
    norm.bias.copy_(target.mean(dim=1))


_SIZE = (160, 192)
_CENTER_CROP = 0.75  # fraction of an image, to leave out most of the border padding


def read_center_crops(paths: list[Path], input_size: tuple[int, int]) -> torch.Tensor:
    """Reads the normalized center crops (N, 3, H, W) of images."""
    width, height = input_size
    crops = []
    for path in paths:
        image = read_image(path)
        box = [0, 0, image.shape[1], image.shape[0]]
        matrix = image_to_crop_matrix(*padded_region(box, width / height, _CENTER_CROP), input_size)
        crops.append(warp_crop(image, matrix, input_size))
    return normalize_crops(torch.from_numpy(np.stack(crops)))


def main(argv: list[str] | None = None) -> None:
    """Writes the narrowed weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="ImageNet weights of the wide network (torchvision or timm)")
    parser.add_argument("--wide", default="mobilenetv2_100", help="backbone of these weights (default: %(default)s)")
    parser.add_argument("--backbone", default="mobilenetv2_050", help="narrow backbone to fit (default: %(default)s)")
    parser.add_argument("--images", type=Path, required=True, help="folder of images for the fit")
    parser.add_argument("--count", type=int, default=224, help="number of images (default: %(default)s; 45 MB each)")
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors")
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        raise ValueError(f"--count must be at least 1, got {arguments.count}")
    paths = image_paths([str(arguments.images)])
    chosen = paths[:: max(1, len(paths) // arguments.count)][: arguments.count]
    wide, slim = (create_model(f"{name}-bneck").eval() for name in (arguments.wide, arguments.backbone))
    print(load_pretrained(wide, arguments.weights))
    lost = narrow(wide.backbone, slim.backbone, read_center_crops(chosen, _SIZE))
    with atomic_write(arguments.out) as temporary:
        save_file(to_torchvision(slim.backbone), temporary)
    print(f"wrote {arguments.out}: loses {lost:.1%} of the last layer's variance on {len(chosen)} images")


if __name__ == "__main__":
    run_and_exit(main, "narrowing")
