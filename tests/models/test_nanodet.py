"""NanoDet-g: its outputs against TensorFlow.js, its layers against torch's, and its weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from posedy.models.nanodet import (
    NUM_BINS,
    PERSON_WEIGHTS,
    STRIDES,
    CspBlock,
    NanoDet,
    PathAggregation,
    load_nanodet,
    normalize_images,
)
from posedy.models.registry import list_pretrained

IMAGES = Path(__file__).parents[2] / "data/coco_mini/val2017"


@pytest.fixture(scope="module")
def net() -> NanoDet:
    return load_nanodet().requires_grad_(False)


def test_weights_are_float16_in_the_file_and_float32_in_the_network(net: NanoDet) -> None:
    assert PERSON_WEIGHTS.stat().st_size <= 8e6
    assert {tensor.dtype for tensor in load_file(PERSON_WEIGHTS).values()} == {torch.float16}
    assert {tensor.dtype for tensor in net.state_dict().values()} == {torch.float32}
    assert not net.training
    assert not any("nanodet" in name for name in list_pretrained())


# TensorFlow.js 4 on the original graph, images stretched to 416x416: the locations with the highest person scores, the
# scores, and the expectations of the bins
TFJS = {
    "000000085772.jpg": (
        [3475, 3474, 3488, 3462],
        [0.8880, 0.8790, 0.8714, 0.8708],
        [
            [3.497, 5.564, 3.176, 5.489],
            [2.485, 5.558, 4.166, 5.473],
            [3.508, 6.507, 3.219, 4.504],
            [3.492, 4.541, 3.188, 6.454],
        ],
    ),
    "000000091406.jpg": (
        [2976, 3002, 2975, 3001],
        [0.6869, 0.6581, 0.6361, 0.6198],
        [
            [2.878, 7.561, 2.246, 8.381],
            [2.809, 8.527, 2.314, 7.393],
            [2.042, 7.642, 3.213, 8.192],
            [2.022, 8.640, 3.248, 7.151],
        ],
    ),
}


@pytest.mark.parametrize("name", TFJS)
def test_outputs_equal_those_of_tensorflow_js(net: NanoDet, name: str) -> None:
    """`python -m tools.lab.convert_nanodet --verify` compares all outputs."""
    locations, scores, distances = TFJS[name]
    image = cv2.resize(cv2.imread(str(IMAGES / name)), (416, 416))
    logits, bins = net(normalize_images(torch.from_numpy(image)[None]))
    assert logits.shape == (1, 52**2 + 26**2 + 13**2, 1)
    assert logits[0, :, 0].topk(4).indices.tolist() == locations
    np.testing.assert_allclose(logits[0, locations, 0].sigmoid(), scores, atol=2e-3)
    expectation = (bins[0, locations].softmax(-1) * torch.arange(NUM_BINS)).sum(-1)
    np.testing.assert_allclose(expectation, distances, atol=1e-2)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 160), (96, 32)])
def test_any_multiple_of_32_and_any_batch_size_are_supported(net: NanoDet, height: int, width: int) -> None:
    images = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits, bins = net(normalize_images(images))
    count = sum((height // stride) * (width // stride) for stride in STRIDES)
    assert (logits.shape, bins.shape) == ((3, count, 1), (3, count, 4, NUM_BINS))
    for index in range(3):
        single_logits, single_bins = net(normalize_images(images[index : index + 1]))
        torch.testing.assert_close(single_logits[0], logits[index], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(single_bins[0], bins[index], rtol=1e-4, atol=1e-4)


def test_images_are_normalized_by_color() -> None:
    images = torch.tensor([[[[0, 0, 0], [255, 255, 255]]]], dtype=torch.uint8)
    expected = torch.tensor([[-103.53, 151.47], [-116.28, 138.72], [-123.675, 131.325]])
    expected /= torch.tensor([[57.375], [57.12], [58.395]])
    torch.testing.assert_close(normalize_images(images), expected[None, :, None])


def test_path_aggregation_interpolates_bilinearly() -> None:
    torch.manual_seed(0)
    neck = PathAggregation([4, 6, 8], 5)
    features = [torch.randn(2, channels, *size) for channels, size in ((4, (8, 12)), (6, (4, 6)), (8, (2, 3)))]
    fine, middle, coarse = (lateral(feature) for lateral, feature in zip(neck.laterals, features, strict=True))

    def resize(x: torch.Tensor, factor: float) -> torch.Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    middle = middle + resize(coarse, 2)
    fine = fine + resize(middle, 2)
    middle = middle + resize(fine, 0.5)
    coarse = coarse + resize(middle, 0.5)
    for level, expected in zip(neck(features), (fine, middle, coarse), strict=True):
        torch.testing.assert_close(level, expected)


def test_a_block_concatenates_its_first_feature_map() -> None:
    torch.manual_seed(0)
    block, x = CspBlock(6, 2, stride=2), torch.randn(1, 6, 8, 10)
    y = block(x)
    assert y.shape == (1, 12, 4, 5)
    torch.testing.assert_close(y[:, 6:], F.leaky_relu(block.first[0](x), 0.1))


def test_all_parameters_have_gradients() -> None:
    torch.manual_seed(0)
    net = NanoDet(num_classes=2)
    logits, bins = net(torch.randn(1, 3, 64, 64))
    assert logits.shape[-1] == 2
    (logits.square().sum() + bins.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_other_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        load_nanodet(tmp_path / "absent.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(PERSON_WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged\.safetensors"):
        load_nanodet(tmp_path / "damaged.safetensors")
    save_file(NanoDet(num_classes=2).state_dict(), tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match=r"two\.safetensors"):
        load_nanodet(tmp_path / "two.safetensors")
