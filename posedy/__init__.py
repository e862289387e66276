"""Human pose estimation with dynamic convolution.

The names below are imported when they are first used, so that `import posedy` costs nothing. It does not import torch,
but sets the environment of its CPU threads (see `posedy.cpu_threads`).
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from posedy.cpu_threads import configure_openmp as _configure_openmp

if TYPE_CHECKING:
    from posedy.inference.estimator import PoseEstimator
    from posedy.models.conversion import to_dynamic, to_static
    from posedy.models.dynamic_conv import DynamicConv2d, set_temperature
    from posedy.models.pretrained import list_pretrained, load_checkpoint
    from posedy.models.registry import create_model, list_models
    from posedy.skeleton import COCO17, Skeleton

    __version__: str

__all__ = [
    "COCO17",
    "DynamicConv2d",
    "PoseEstimator",
    "Skeleton",
    "__version__",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_checkpoint",
    "set_temperature",
    "to_dynamic",
    "to_static",
]

_HOMES = {
    "COCO17": "posedy.skeleton",
    "DynamicConv2d": "posedy.models.dynamic_conv",
    "PoseEstimator": "posedy.inference.estimator",
    "Skeleton": "posedy.skeleton",
    "create_model": "posedy.models.registry",
    "list_models": "posedy.models.registry",
    "list_pretrained": "posedy.models.pretrained",
    "load_checkpoint": "posedy.models.pretrained",
    "set_temperature": "posedy.models.dynamic_conv",
    "to_dynamic": "posedy.models.conversion",
    "to_static": "posedy.models.conversion",
}

_configure_openmp()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.metadata.version("posedy")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'posedy' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
