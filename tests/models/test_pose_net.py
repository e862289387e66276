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
from posedy.models.factory import create_model
from posedy.models.pose_net import SpatialSoftmax, normalize_array, normalize_crops, predict_outputs
from posedy.skeleton import COCO17

NAME = "dy_mobilenetv2_035-dy_bneck"


@pytest.mark.parametrize(("height", "width"), [(64, 48), (96, 72), (16, 16)])
def test_spatial_softmax_sums_to_a_gaussian(height, width):
    logits = 5 * torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    heatmaps = SpatialSoftmax()(logits)
    sigma = MSRACodec((4 * width, 4 * height)).target_sigma
    np.testing.assert_allclose(heatmaps.sum(dim=(2, 3)), 2 * math.pi * sigma**2, rtol=1e-5)
    ratio = heatmaps[..., 1:].log() - heatmaps[..., :-1].log()
    torch.testing.assert_close(ratio, logits.diff(dim=-1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("input_size", [(192, 256), (288, 384), (144 + 48, 192)])
def test_spatial_softmax_of_a_perfect_heatmap_equals_the_target(input_size):
    codec = MSRACodec(input_size)
    targets, _ = codec.encode(torch.tensor([[[input_size[0] / 2, input_size[1] / 2]]]), torch.ones(1, 1))
    heatmaps = SpatialSoftmax()(targets.log().clamp(min=-1000))
    # the target's sum is 2 pi sigma^2 except for the tails beyond 3 sigma, 0.3 % of it along each axis
    torch.testing.assert_close(heatmaps, targets, rtol=0, atol=0.02)
    assert heatmaps.max() == pytest.approx(1, abs=0.02)


def test_spatial_softmax_uses_the_sigma_of_the_network():
    net = create_model("mobilenetv2_035-bneck", output="softmax", sigma=3, input_size=(96, 128))
    targets, _ = net.codec.encode(torch.tensor([[[48.0, 64.0]]]), torch.ones(1, 1))
    heatmaps = net.output(targets.log().clamp(min=-1000))
    torch.testing.assert_close(heatmaps, targets, rtol=0, atol=0.02)


def test_codec_has_the_type_size_and_sigma_of_the_network():
    assert create_model("mobilenetv2_035-bneck").codec == MSRACodec((192, 256))
    net = create_model("mobilenetv2_035-bneck", codec="unbiased", sigma=1.5, input_size=(64, 96))
    assert net.codec == UnbiasedCodec((64, 96), 1.5)


def test_spatial_softmax_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert SpatialSoftmax()(torch.randn(1, 2, 8, 8).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("output", ["linear", pytest.param("softmax", marks=pytest.mark.slow)])
def test_output_shape(output):
    net = create_model(NAME, output=output).eval()
    assert net(torch.randn(1, 3, 256, 192)).shape == (1, 17, 64, 48)
    assert net(torch.randn(2, 3, 64, 96)).shape == (2, 17, 16, 24)
    assert net.num_keypoints == 17


def test_output_layer_is_applied_to_the_head_output():
    net = create_model(NAME, output="softmax", depth=0.34).eval()
    linear = create_model(NAME, depth=0.34).eval()
    linear.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net(x), SpatialSoftmax()(linear(x)))


@pytest.mark.parametrize("shape", [(1, 3, 250, 192), (1, 3, 256, 190), (3, 256, 192), (1, 1, 3, 64, 64)])
def test_size_not_divisible_by_32_is_rejected(shape):
    with pytest.raises(ValueError, match="divisible by 32"):
        create_model(NAME)(torch.zeros(shape))


def test_output_of_an_image_is_independent_of_the_batch(perturb):
    net = create_model(NAME, depth=0.34).double()  # sharp attention in 31 layers multiplies the errors of float32
    x = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    perturb(net, x)
    y = net(x)
    scale = float(y.detach().abs().max())
    for index in range(3):
        torch.testing.assert_close(net(x[index : index + 1]), y[index : index + 1], rtol=0, atol=1e-6 * scale)
    shuffled = net(x[[2, 0, 1]])
    torch.testing.assert_close(shuffled, y[[2, 0, 1]], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("linear", NAME),
        ("softmax", "dy_mobilenetv3_small-dy_fpn"),
        *(
            pytest.param(output, name, marks=pytest.mark.slow)
            for output, name in (
                ("softmax", NAME),
                ("linear", "dy_mobilenetv3_small-dy_fpn"),
                ("linear", "dy_resnet10-deconv"),
                ("softmax", "dy_resnet10-deconv"),
            )
        ),
    ],
)
def test_an_empty_batch_has_empty_heatmaps_with_gradients(name, output):
    net = create_model(name, output=output)
    for training in (True, False):
        net.train(training)
        heatmaps = net(torch.zeros(0, 3, 64, 96))
        assert heatmaps.shape == (0, 17, 16, 24)
        heatmaps.sum().backward()
        for parameter_name, parameter in net.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert not parameter.grad.any(), parameter_name
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())


def test_channels_last_output_is_equal(perturb):
    net = create_model(NAME, depth=0.34).double()
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    perturb(net, x)
    expected = net(x)
    net.to(memory_format=torch.channels_last)
    y = net(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9 * float(expected.detach().abs().max()))


def test_copies_have_equal_outputs(perturb):
    net = create_model(NAME, input_size=(64, 96), depth=0.34)
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
    perturb(net, x)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(copied(x), net(x), rtol=0, atol=0)
        assert (copied.name, copied.skeleton, copied.input_size) == (net.name, net.skeleton, net.input_size)


def test_perturb_makes_attention_sharp_in_every_layer(perturb):
    """Equality tests rely on sharp attention that differs per image."""
    net = create_model(NAME)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    perturb(net, x)
    attentions: list[torch.Tensor] = []
    for layer in net.modules():
        if isinstance(layer, KernelAttention):
            layer.register_forward_hook(lambda layer, inputs, attention: attentions.append(attention.detach()))
    net(x)
    assert len(attentions) == 50 + 11
    for attention in attentions:
        assert attention.max() > 0.8
        assert (attention - attention[:1]).abs().max() > 0.3


def test_grayscale_network_converts_rgb_to_luma():
    net = create_model("mobilenetv2_035-bneck", in_channels=1).eval().double()
    x = torch.randn(2, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gray = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    torch.testing.assert_close(net(x), net(gray), rtol=0, atol=1e-12)


def test_wrong_number_of_channels_is_rejected():
    with pytest.raises(ValueError, match=r"in_channels=4 .*got 3"):
        create_model("mobilenetv2_035-bneck", in_channels=4)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"in_channels=3 .*got 1"):
        create_model("mobilenetv2_035-bneck")(torch.zeros(1, 1, 32, 32))


FLIP_CODEC = MSRACodec((64, 96))


class RecordingNetwork:
    """A network that records its inputs and returns random heatmaps, equal for equal images."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.inputs: list[Tensor] = []
        self.dtype = dtype

    def __call__(self, images: Tensor) -> Tensor:
        self.inputs.append(images)
        assert not torch.is_grad_enabled() or not images.requires_grad
        generator = torch.Generator().manual_seed(int(images.sum() * 1e3) % 2**31)
        return torch.rand(len(images), 17, images.shape[2] // 4, images.shape[3] // 4, generator=generator).to(
            self.dtype
        )


def crops(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, 96, 64, 3), dtype=np.uint8)


def test_normalize_crops_equals_torchvision():
    images = crops(3)
    expected = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )(torch.from_numpy(images).permute(0, 3, 1, 2))
    normalized = normalize_crops(torch.from_numpy(images))
    assert torch.equal(normalize_array(images), normalized)
    assert normalized.dtype == torch.float32
    assert normalized.is_contiguous()
    torch.testing.assert_close(normalized, expected, rtol=0, atol=1e-5)


def test_predict_outputs_without_flip_calls_the_network_once():
    net = RecordingNetwork()
    images = torch.from_numpy(crops())
    heatmaps = predict_outputs(net, images, FLIP_CODEC)["heatmaps"]
    assert len(net.inputs) == 1
    torch.testing.assert_close(net.inputs[0], normalize_crops(images), rtol=0, atol=0)
    torch.testing.assert_close(heatmaps, RecordingNetwork()(normalize_crops(images)), rtol=0, atol=0)


def test_predict_outputs_with_flip_merges_flipped_heatmaps():
    net = RecordingNetwork()
    images = torch.from_numpy(crops())
    heatmaps = predict_outputs(net, images, FLIP_CODEC, COCO17.flip_permutation)["heatmaps"]
    original, flipped = net.inputs
    torch.testing.assert_close(flipped, torch.flip(original, dims=[3]), rtol=0, atol=0)
    outputs, flipped_outputs = ({"heatmaps": RecordingNetwork()(x)} for x in (original, flipped))
    expected = FLIP_CODEC.merge_flipped(outputs, flipped_outputs, COCO17.flip_permutation)
    torch.testing.assert_close(heatmaps, expected["heatmaps"], rtol=0, atol=0)


def test_one_batch_of_crops_and_flipped_crops_gives_the_same_outputs():
    sizes = []

    def net(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return torch.nn.functional.avg_pool2d(images.repeat(1, 6, 1, 1)[:, :17], 4)

    images = torch.from_numpy(crops(3))
    apart, joined = (
        predict_outputs(net, images, FLIP_CODEC, COCO17.flip_permutation, in_one_batch)["heatmaps"]
        for in_one_batch in (False, True)
    )
    assert sizes == [3, 3, 6]
    torch.testing.assert_close(joined, apart, rtol=0, atol=0)
