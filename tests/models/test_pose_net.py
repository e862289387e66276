import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from posedy.codecs import MSRACodec, UnbiasedCodec
from posedy.models.dynamic_conv import KernelAttention
from posedy.models.pose_net import SpatialSoftmax, normalize_crops, predict_heatmaps
from posedy.models.registry import create_model
from posedy.skeleton import COCO17

NAME = "dy_mobilenetv2_035-dy_bneck"


@pytest.mark.parametrize(("height", "width"), [(64, 48), (96, 72), (16, 16)])
def test_softmax_sums_to_the_mass_of_a_gaussian(height, width):
    maps = 5 * torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    heatmaps = SpatialSoftmax()(maps)
    sigma = MSRACodec((4 * width, 4 * height)).target_sigma
    np.testing.assert_allclose(heatmaps.sum(dim=(2, 3)), 2 * math.pi * sigma**2, rtol=1e-5)
    ratio = heatmaps[..., 1:].log() - heatmaps[..., :-1].log()
    torch.testing.assert_close(ratio, maps.diff(dim=-1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("input_size", [(192, 256), (288, 384), (144 + 48, 192)])
def test_softmax_of_a_perfect_map_is_the_codecs_target(input_size):
    codec = MSRACodec(input_size)
    targets, _ = codec.encode(torch.tensor([[[input_size[0] / 2, input_size[1] / 2]]]), torch.ones(1, 1))
    heatmaps = SpatialSoftmax()(targets.log().clamp(min=-1000))
    # The target's sum over cells is 2 pi sigma^2 but for the tails beyond 3 sigma, 0.3 % of it in each direction.
    torch.testing.assert_close(heatmaps, targets, rtol=0, atol=0.02)
    assert heatmaps.max() == pytest.approx(1, abs=0.02)


def test_softmax_of_a_given_sigma_is_the_codecs_target_of_that_sigma():
    net = create_model("mobilenetv2_035-bneck", output="softmax", sigma=3, input_size=(96, 128))
    targets, _ = net.codec.encode(torch.tensor([[[48.0, 64.0]]]), torch.ones(1, 1))
    heatmaps = net.output(targets.log().clamp(min=-1000))
    torch.testing.assert_close(heatmaps, targets, rtol=0, atol=0.02)


def test_codec_has_the_networks_coding_size_and_sigma():
    assert create_model("mobilenetv2_035-bneck").codec == MSRACodec((192, 256))
    net = create_model("mobilenetv2_035-bneck", coding="unbiased", sigma=1.5, input_size=(64, 96))
    assert net.codec == UnbiasedCodec((64, 96), 1.5)


def test_softmax_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert SpatialSoftmax()(torch.randn(1, 2, 8, 8).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("output", ["linear", "softmax"])
def test_output_size(output):
    net = create_model(NAME, output=output).eval()
    assert net(torch.randn(1, 3, 256, 192)).shape == (1, 17, 64, 48)
    assert net(torch.randn(2, 3, 64, 96)).shape == (2, 17, 16, 24)
    assert net.num_keypoints == 17


def test_output_layer_is_applied_to_the_heads_map():
    net = create_model(NAME, output="softmax").eval()
    linear = create_model(NAME).eval()
    linear.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(x), SpatialSoftmax()(linear(x)))


@pytest.mark.parametrize("shape", [(1, 3, 250, 192), (1, 3, 256, 190), (3, 256, 192), (1, 1, 3, 64, 64)])
def test_refuses_other_sizes(shape):
    with pytest.raises(ValueError, match="divisible by 32"):
        create_model(NAME)(torch.zeros(shape))


def test_image_of_a_batch_equals_the_image_alone(perturb):
    net = create_model(NAME).double()  # sharp attention in 61 layers multiplies the errors of float32
    x = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    perturb(net, x)
    y = net(x)
    scale = float(y.detach().abs().max())
    for index in range(3):
        torch.testing.assert_close(net(x[index : index + 1]), y[index : index + 1], rtol=0, atol=1e-6 * scale)
    shuffled = net(x[[2, 0, 1]])
    torch.testing.assert_close(shuffled, y[[2, 0, 1]], rtol=0, atol=1e-6 * scale)


def test_channels_last_changes_nothing(perturb):
    net = create_model(NAME).double()
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    perturb(net, x)
    expected = net(x)
    net.to(memory_format=torch.channels_last)
    y = net(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9 * float(expected.detach().abs().max()))


def test_copies_give_equal_outputs(perturb):
    net = create_model(NAME, input_size=(64, 96))
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    perturb(net, x)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(copied(x), net(x), rtol=0, atol=0)
        assert (copied.name, copied.skeleton, copied.input_size) == (net.name, net.skeleton, net.input_size)


def test_sharp_attention_tells_images_apart(perturb):
    """The perturbation that equality tests rely on does what it says in every layer of a whole network."""
    net = create_model(NAME)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    perturb(net, x)
    seen: list[torch.Tensor] = []
    for layer in net.modules():
        if isinstance(layer, KernelAttention):
            layer.register_forward_hook(lambda layer, inputs, attention: seen.append(attention.detach()))
    net(x)
    assert len(seen) == 50 + 11
    for attention in seen:
        assert attention.max() > 0.8
        assert (attention - attention[:1]).abs().max() > 0.3


def test_gray_network_sees_the_luma_of_color_crops():
    net = create_model("mobilenetv2_035-bneck", in_channels=1).eval().double()
    x = torch.randn(2, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gray = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(net(x), net(gray), rtol=0, atol=1e-12)


def test_refuses_other_channels():
    with pytest.raises(ValueError, match=r"in_channels=4, got crops of 3 channels"):
        create_model("mobilenetv2_035-bneck", in_channels=4)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"in_channels=3, got crops of 1 channels"):
        create_model("mobilenetv2_035-bneck")(torch.zeros(1, 1, 32, 32))


FLIP_CODEC = MSRACodec((64, 96))


class Recorder:
    """A network that keeps what it was given and answers with random heatmaps, the same for the same images."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.seen: list[Tensor] = []
        self.dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        assert not torch.is_grad_enabled() or not images.requires_grad
        generator = torch.Generator().manual_seed(int(images.sum() * 1e3) % 2**31)
        return torch.rand(len(images), 17, images.shape[2] // 4, images.shape[3] // 4, generator=generator).to(
            self.dtype
        )


def crops(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, 96, 64, 3), dtype=np.uint8)


def test_normalizes_as_torchvision_does():
    images = crops(3)
    expected = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )(torch.from_numpy(images).permute(0, 3, 1, 2))
    normalized = normalize_crops(torch.from_numpy(images))
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous()
    torch.testing.assert_close(normalized, expected, rtol=0, atol=1e-5)


def test_without_flip_the_network_is_called_once():
    net = Recorder()
    images = torch.from_numpy(crops())
    heatmaps = predict_heatmaps(net, images, FLIP_CODEC)
    assert len(net.seen) == 1
    torch.testing.assert_close(net.seen[0], normalize_crops(images), rtol=0, atol=0)
    torch.testing.assert_close(heatmaps, Recorder()(normalize_crops(images)), rtol=0, atol=0)


def test_with_flip_the_heatmaps_of_flipped_crops_are_averaged():
    net = Recorder()
    images = torch.from_numpy(crops())
    heatmaps = predict_heatmaps(net, images, FLIP_CODEC, COCO17.flip_permutation)
    plain, flipped = net.seen
    torch.testing.assert_close(flipped, torch.flip(plain, dims=[3]), rtol=0, atol=0)
    expected = FLIP_CODEC.merge_flipped(Recorder()(plain), Recorder()(flipped), COCO17.flip_permutation)
    torch.testing.assert_close(heatmaps, expected, rtol=0, atol=0)
