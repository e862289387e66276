"""The attention over the kernels of a dynamic convolution, and its temperature."""

import pytest
import torch
from torch import Tensor, nn

from posedy.models.dynamic_conv import DynamicConv2d, KernelAttention, set_temperature


@pytest.mark.parametrize(
    ("in_channels", "reduction", "hidden"), [(3, 4, 1), (1, 4, 1), (7, 4, 1), (64, 4, 16), (8, 1, 8)]
)
def test_attention_hidden_size(in_channels, reduction, hidden):
    attention = KernelAttention(in_channels, 4, reduction)
    assert attention.fc1.weight.shape == (hidden, in_channels)
    assert attention.fc2.weight.shape == (4, hidden)
    assert attention.fc1.bias is not None
    assert attention.fc2.bias is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_float32_under_autocast(dtype, perturb):
    layer = DynamicConv2d(16, 8, 3)
    x = torch.randn(6, 16, 7, 9, generator=torch.Generator().manual_seed(0))
    perturb(layer, x)
    expected = layer.attention(x.to(dtype).float())
    with torch.autocast("cpu", torch.bfloat16):
        attention = layer.attention(x.to(dtype))
        y = layer(x.to(dtype))
    assert attention.dtype == torch.float32
    assert attention.sum(dim=1).sub(1).abs().max() < 1e-6
    torch.testing.assert_close(attention, expected, rtol=0, atol=0)
    assert y.dtype == torch.bfloat16


def test_one_image_is_normalized_by_the_running_statistics():
    layer = DynamicConv2d(8, 8, 3, attention="normalized", temperature=1)
    x = torch.randn(1, 8, 7, 9, generator=torch.Generator().manual_seed(0))
    layer(x.repeat(2, 1, 1, 1) + torch.randn(2, 1, 1, 1))  # statistics other than 0 and 1
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    y = layer(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())
    y.sum().backward()
    assert layer.attention.norm.weight.grad.abs().max() > 0
    torch.testing.assert_close(y, layer.eval()(x))


def test_temperature_is_in_the_state_dict(perturb):
    layer = DynamicConv2d(8, 8, 3, temperature=30.0)
    x = torch.randn(3, 8, 7, 9, generator=torch.Generator().manual_seed(0))
    perturb(layer, x)
    set_temperature(layer, 7.5)
    assert layer.state_dict()["attention.temperature"] == 7.5
    fresh = DynamicConv2d(8, 8, 3, temperature=30.0)
    fresh.load_state_dict(layer.state_dict())
    assert fresh.attention.temperature == 7.5
    torch.testing.assert_close(fresh(x), layer(x), rtol=0, atol=0)


def test_high_temperature_makes_attention_uniform(perturb):
    net = nn.Sequential(
        DynamicConv2d(8, 8, 1, temperature=1), nn.Sequential(DynamicConv2d(8, 8, 3)), nn.Conv2d(8, 1, 1)
    )
    x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    perturb(net, x)
    sharp = net(x)
    set_temperature(net, 1e6)
    assert not torch.allclose(sharp, net(x), rtol=0.01)
    for layer in net.modules():
        if isinstance(layer, KernelAttention):
            torch.testing.assert_close(layer(torch.randn(4, 8, 2, 2)), torch.full((4, 4), 0.25), rtol=0, atol=1e-3)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_invalid_temperature_is_rejected(temperature):
    with pytest.raises(ValueError, match="temperature"):
        DynamicConv2d(4, 4, 1, temperature=temperature)
    layer = DynamicConv2d(4, 4, 1)
    with pytest.raises(ValueError, match="temperature"):
        set_temperature(layer, temperature)
    assert layer.attention.temperature == 30


def test_normalized_attention_is_the_softmax_of_logits_after_a_batch_norm():
    torch.manual_seed(0)
    layer = KernelAttention(6, 4, temperature=0.7, kind="normalized").double()
    layer.norm.weight.data.uniform_(0.5, 2)
    layer.norm.bias.data.normal_()
    x = torch.randn(9, 6, 5, 4, dtype=torch.float64) + torch.randn(9, 6, 1, 1, dtype=torch.float64)
    z = layer.fc2(layer.fc1(x.mean(dim=(2, 3))).relu())

    def expected(mean: Tensor, variance: Tensor) -> Tensor:
        scaled = (z - mean) / (variance + layer.norm.eps).sqrt() * layer.norm.weight + layer.norm.bias
        return (scaled / 0.7).softmax(dim=1)

    torch.testing.assert_close(layer(x), expected(z.mean(dim=0), z.var(dim=0, unbiased=False)))
    layer.eval()
    torch.testing.assert_close(layer(x), expected(layer.norm.running_mean, layer.norm.running_var))


def test_normalized_attention_differs_between_images_however_small_the_logits():
    torch.manual_seed(0)
    layer = KernelAttention(16, 4, temperature=1, kind="normalized")
    layer.fc2.weight.data.mul_(1e-2)
    layer.fc2.bias.data.copy_(torch.tensor([9.0, 0, 0, 0]))  # would select the first kernel for all images
    pi = layer(torch.randn(64, 16, 3, 3) + torch.randn(64, 16, 1, 1))
    assert pi.std(dim=0).min() > 0.1
    assert (pi.mean(dim=0) - 0.25).abs().max() < 0.05
