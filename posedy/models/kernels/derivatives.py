"""Gradients of kernels that have no second derivatives."""

import functools
from collections.abc import Callable
from typing import Any

import torch


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
                "compute them on the CPU, or without Triton"
            )
        return backward(ctx, *grads)

    return checked
