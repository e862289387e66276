"""Upsampling by matrix products, as on GPUs, equals torch's bilinear upsampling."""

import pytest
import torch
import torch.nn.functional as F

from posedy.models.ops import BilinearUpsample, upsampling_matrix


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 6), (5, 1)])
def test_matrix_products_equal_bilinear_interpolation(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, columns = upsampling_matrix(size[0], x), upsampling_matrix(size[1], x)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(rows @ (x @ columns.T), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(BilinearUpsample()(x), expected, rtol=0, atol=0)


def test_upsampling_matrix_is_exact_in_half_precision() -> None:
    matrix = upsampling_matrix(4, torch.zeros(1, dtype=torch.bfloat16))
    assert torch.equal(matrix.double(), upsampling_matrix(4, torch.zeros(1, dtype=torch.float64)))
    assert matrix.double().sum(dim=1).tolist() == [1.0] * 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_equals_cpu() -> None:
    x = torch.randn(2, 5, 8, 6)
    torch.testing.assert_close(BilinearUpsample()(x.cuda()).cpu(), BilinearUpsample()(x), rtol=1e-4, atol=1e-4)
