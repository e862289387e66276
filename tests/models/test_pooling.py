import pytest
import torch

from posedy.models.ops import pixel_mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_the_plain_mean_in_value_and_gradient(dtype, memory_format):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 7, generator=generator).to(dtype).contiguous(memory_format=memory_format)
    pull = torch.randn(2, 3, generator=generator)
    scale = torch.randn(x.shape, generator=generator).to(dtype)

    def gradients(mean):
        """Of the mean alone, and of a map that goes another way too."""
        alone, shared = x.clone().requires_grad_(), x.clone().requires_grad_()
        (mean(alone) * pull).sum().backward()
        ((mean(shared) * pull).sum() + (shared * scale).float().sum()).backward()
        return alone.grad, shared.grad

    expected = gradients(lambda x: x.mean(dim=(2, 3), dtype=torch.float32))
    found = gradients(lambda x: pixel_mean(x, torch.float32))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_gradient_takes_no_memory():
    x = torch.randn(2, 3, 5, 7, requires_grad=True)
    (gradient,) = torch.autograd.grad(pixel_mean(x, torch.float32).sum(), x)
    assert gradient.untyped_storage().nbytes() == 2 * 3 * 4


def test_gradient_is_that_of_finite_differences():
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pixel_mean(x, torch.float64), x)
