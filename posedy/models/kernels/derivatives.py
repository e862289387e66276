"""Derivatives that hand-written gradients do not support."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def first_derivatives_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates the `backward` of an autograd function whose operations autograd does not record.

    Torch's `once_differentiable` treats the gradient as a constant where no gradient of it is required, which makes
    second derivatives wrong without an error.

    Raises:
        RuntimeError: by the decorated function, if the gradient is computed with `create_graph=True`.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the Triton kernels of convolution and batch norm have no second derivatives (create_graph=True): "
                "compute them with torch.func.grad or torch.func.hessian, which use torch's operations, or on the CPU"
            )
        return backward(ctx, *grads)

    return checked


def is_transformed(*tensors: Tensor) -> bool:
    """Returns whether `torch.func` transforms the computation, or a tensor has a tangent of forward mode.

    A hand-written `backward` supports neither, torch's operations support both. Graphs of `torch.compile` are of
    reverse mode.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )
