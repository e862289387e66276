"""Transforms of `torch.func`, forward mode and graphs of torch equal reverse mode and eager execution."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from posedy.export.fuse import PerImageBlock, fuse
from posedy.models.blocks import DynamicConvFactory, conv_norm_act, static_conv
from posedy.models.kernels import availability
from posedy.models.kernels.derivatives import is_transformed


@pytest.fixture
def net() -> nn.Sequential:
    """Static and dynamic, depthwise, 1x1 and 3x3 convolutions."""
    torch.manual_seed(0)
    conv = DynamicConvFactory(temperature=1.0)
    return nn.Sequential(
        conv_norm_act(static_conv(3, 6, 3, 2), 6, nn.Hardswish()),
        conv_norm_act(static_conv(6, 6, 3, groups=6), 6),
        conv_norm_act(conv(6, 6, 3), 6, nn.Hardswish()),
        conv_norm_act(conv(6, 6, 5, 2, groups=6), 6),
        conv(6, 4, 1, bias=True),
    ).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def random_like(tensors: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, dtype=t.dtype, generator=generator) for name, t in tensors.items()}


def detached(net: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def inner_product(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def test_gradients_per_image_equal_a_loop(net: nn.Sequential, images: Tensor) -> None:
    net.double()

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(net, parameters, (image[None],)).square().sum()

    per_image = vmap(grad(loss), in_dims=(None, 0))(detached(net), images)
    for index, image in enumerate(images):
        expected = torch.autograd.grad(net(image[None]).square().sum(), list(net.parameters()))
        for name, gradient in zip(per_image, expected, strict=True):
            torch.testing.assert_close(per_image[name][index], gradient, rtol=1e-9, atol=1e-12)


def test_vmap_equals_a_batch_and_keeps_gradients(net: nn.Sequential, images: Tensor) -> None:
    net.double()
    outputs = vmap(lambda image: net(image[None])[0])(images)
    expected = net(images)
    torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-12)
    parameters = list(net.parameters())
    actual = torch.autograd.grad(outputs.square().sum(), parameters)
    torch.testing.assert_close(actual, torch.autograd.grad(expected.square().sum(), parameters), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("of_images", [True, False], ids=["images", "parameters"])
@pytest.mark.parametrize("functional", [True, False], ids=["torch.func.jvp", "dual tensors"])
def test_forward_mode_is_the_adjoint_of_reverse_mode(
    net: nn.Sequential, images: Tensor, of_images: bool, functional: bool
) -> None:
    """<u, J v> = <J^T u, v>."""
    net.double()
    inputs = {"images": images} if of_images else dict(net.named_parameters())
    v = random_like(inputs, seed=2)

    def call(values: dict[str, Tensor]) -> Tensor:
        return net(values["images"]) if of_images else functional_call(net, values, (images,))

    if functional:
        output, tangent = jvp(call, (inputs,), (v,))
    else:
        with forward_ad.dual_level():
            dual = call({name: forward_ad.make_dual(tensor, v[name]) for name, tensor in inputs.items()})
            output, tangent = forward_ad.unpack_dual(dual)
    torch.testing.assert_close(output, call(inputs), rtol=1e-9, atol=1e-12)
    u = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(3))
    variables = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    gradients = torch.autograd.grad(call(variables), list(variables.values()), u)
    expected = inner_product(dict(zip(variables, gradients, strict=True)), v)
    torch.testing.assert_close((u * tangent).sum(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_hessian_products_of_forward_and_reverse_mode_are_equal(
    net: nn.Sequential, images: Tensor, training: bool
) -> None:
    net.double().train(training)
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    v = random_like(parameters, seed=2)

    def loss(values: dict[str, Tensor]) -> Tensor:
        # copies: in training mode norms update their statistics in place
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        return functional_call(net, (values, copies), (images,)).square().sum()

    _, actual = jvp(grad(loss), (detached(net),), (v,))
    gradients = torch.autograd.grad(loss(parameters), list(parameters.values()), create_graph=True)
    product = inner_product(dict(zip(parameters, gradients, strict=True)), v)
    expected = torch.autograd.grad(product, list(parameters.values()))
    assert sum(second.norm() for second in expected) > 0
    for name, second in zip(parameters, expected, strict=True):
        torch.testing.assert_close(actual[name], second, rtol=1e-8, atol=1e-8)


def test_triton_kernels_are_unused_in_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(availability, "_triton_works", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    properties = {"is_cuda": True, "dtype": torch.float32, "numel": lambda: 1, "is_contiguous": lambda: True}

    def square(x: Tensor) -> Tensor:
        on_gpu = SimpleNamespace(**properties, get_device=lambda: 0)
        monkeypatch.setattr(availability, "is_transformed", lambda _: is_transformed(x))
        used.append(availability.can_use_triton(on_gpu))
        return x * x

    x = torch.ones(())
    square(x.requires_grad_())
    grad(square)(x.detach())
    vmap(square)(torch.ones(2))
    with forward_ad.dual_level():
        square(forward_ad.make_dual(x, torch.ones(())))
    assert used == [True, False, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["network", "fused", "image by image"])
def test_exported_program_supports_any_batch_size(net: nn.Sequential, form: str) -> None:
    forms = {"network": lambda net: net, "fused": fuse, "image by image": lambda net: PerImageBlock(net, 10**6)}
    module = forms[form](net).eval()
    free = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=free).module()
    for count in (1, 3, 8):
        x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
        torch.testing.assert_close(exported(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_network_has_one_graph_and_equal_gradients(net: nn.Sequential) -> None:
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    parameters = list(net.parameters())
    for count in (2, 3):
        x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
        actual, expected = (torch.autograd.grad(f(x).square().sum(), parameters) for f in (compiled, net))
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
