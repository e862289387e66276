import pytest
import torch

from posedy.models.ops import global_avg_pool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradient_equal_mean(dtype, memory_format):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 7, generator=generator).to(dtype).contiguous(memory_format=memory_format)
    grad = torch.randn(2, 3, generator=generator)
    scale = torch.randn(x.shape, generator=generator).to(dtype)

    def gradients(mean):
        """Gradients of the mean alone, and of a feature map with a second consumer."""
        alone, shared = x.clone().requires_grad_(), x.clone().requires_grad_()
        (mean(alone) * grad).sum().backward()
        ((mean(shared) * grad).sum() + (shared * scale).float().sum()).backward()
        return alone.grad, shared.grad

    expected = gradients(lambda x: x.mean(dim=(2, 3), dtype=torch.float32))
    actual = gradients(lambda x: global_avg_pool(x, torch.float32))
    for gradient, expected_gradient in zip(actual, expected, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)


def test_gradient_allocates_one_value_per_channel():
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(global_avg_pool(x, torch.float32).sum(), x)
    assert gradient.untyped_storage().nbytes() == 2 * 3 * 4


def test_gradient_passes_gradcheck():
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: global_avg_pool(x, torch.float64), x)


def test_second_derivatives_pass_gradgradcheck():
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: global_avg_pool(x, torch.float64) ** 2, x)
