from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from posedy.images import from_rgb, to_rgb


@pytest.fixture
def tensor(image: np.ndarray) -> Tensor:
    """The image as an RGB tensor (3, H, W) uint8."""
    return torch.from_numpy(image).permute(2, 0, 1)


@pytest.mark.parametrize("channels", ["bgr", "rgb"])
def test_uint8_and_float_tensors_are_rgb(tensor: Tensor, image: np.ndarray, channels: str) -> None:
    for given in (tensor, tensor.contiguous(), tensor.float() / 255, (tensor.double() / 255).requires_grad_()):
        np.testing.assert_array_equal(to_rgb(given, channels), image)  # type: ignore[arg-type]


def test_the_array_of_a_tensor_is_a_copy(tensor: Tensor, image: np.ndarray) -> None:
    before = image.copy()
    rgb = to_rgb(tensor)
    assert rgb.flags.c_contiguous
    rgb[:] = 0
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(80, 90, 3), r"\(80, 90, 3\).*first axis"),
        (torch.zeros(2, 3, 80, 90), r"\(2, 3, 80, 90\).*list"),
        (torch.zeros(1, 80, 90), r"\(1, 80, 90\)"),
        (torch.zeros(3, 0, 90), "empty"),
        (torch.full((3, 8, 8), 200.0), "200"),
        (torch.full((3, 8, 8), -0.5), r"-0\.5"),
        (torch.full((3, 8, 8), float("nan")), "nan"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "int64"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), "bool"),
    ],
)
def test_invalid_tensors_are_rejected(given: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(given)


def test_from_rgb_returns_the_kind_of_the_other_image(tensor: Tensor, image: np.ndarray, tmp_path: Path) -> None:
    for like in (tensor, tensor.float() / 255):
        result = from_rgb(image, like, "bgr")
        assert isinstance(result, Tensor)
        assert (result.dtype, result.device) == (torch.uint8, like.device)
        assert torch.equal(result, tensor)
    assert isinstance(from_rgb(image, Image.fromarray(image), "bgr"), Image.Image)
    np.testing.assert_array_equal(from_rgb(image, image, "rgb"), image)
    np.testing.assert_array_equal(from_rgb(image, image, "bgr"), image[..., ::-1])
    np.testing.assert_array_equal(from_rgb(image, tmp_path / "image.png", "rgb"), image[..., ::-1])
