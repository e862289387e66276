"""Networks without values, for checks of names and options, and for counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_INITIALIZERS = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}


@contextmanager
def meta_device() -> Iterator[None]:
    """Creates modules on the meta device within the block, without calling the random initialization of their weights.

    A tensor of the meta device has no values, but its first `normal_` imports torch's compiler, which takes seconds,
    and each takes as long as the rest of a small layer.
    """
    with torch.device("meta"), _NoInitialization():
        yield


class _NoInitialization(TorchFunctionMode):
    """Makes the functions that initialize a tensor return it unchanged."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _INITIALIZERS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
