"""Human pose estimation with dynamic convolution.

    import posedy

    estimator = posedy.PoseEstimator()
    poses = estimator("image.jpg")

The names below are imported when they are first used: `import posedy` imports neither torch nor numpy. It sets the
environment variables of OpenMP's threads (see `posedy.cpu_threads`).
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from posedy.cpu_threads import configure_openmp as _configure_openmp

if TYPE_CHECKING:
    from posedy.api import Metrics, evaluate, train
    from posedy.codecs import Codec, list_codecs, register_codec
    from posedy.data.coco import CocoPersons, read_coco
    from posedy.export.fuse import fuse
    from posedy.export.onnx import ExportReport, export_onnx
    from posedy.inference.detectors import list_detectors, register_detector
    from posedy.inference.estimator import PoseEstimator
    from posedy.inference.offline_smoothing import smooth_tracks
    from posedy.inference.track_table import TrackTable
    from posedy.inference.tracked_poses import TrackedPoses
    from posedy.inference.tracking import PoseTracker
    from posedy.models.blocks import Backbone, static_conv
    from posedy.models.conversion import to_dynamic, to_static
    from posedy.models.dynamic_conv import DynamicConv2d, set_temperature
    from posedy.models.factory import create_model
    from posedy.models.pose_net import PoseNet
    from posedy.models.pretrained import load_checkpoint, save_checkpoint
    from posedy.models.registry import list_backbones, list_heads, list_models, register_backbone, register_head
    from posedy.poses import Pose, Poses
    from posedy.skeleton import COCO17, Skeleton

    __version__: str

_HOMES = {
    "Backbone": "posedy.models.blocks",
    "COCO17": "posedy.skeleton",
    "CocoPersons": "posedy.data.coco",
    "Codec": "posedy.codecs",
    "DynamicConv2d": "posedy.models.dynamic_conv",
    "ExportReport": "posedy.export.onnx",
    "Metrics": "posedy.api",
    "Pose": "posedy.poses",
    "PoseEstimator": "posedy.inference.estimator",
    "PoseNet": "posedy.models.pose_net",
    "PoseTracker": "posedy.inference.tracking",
    "Poses": "posedy.poses",
    "Skeleton": "posedy.skeleton",
    "TrackTable": "posedy.inference.track_table",
    "TrackedPoses": "posedy.inference.tracked_poses",
    "create_model": "posedy.models.factory",
    "evaluate": "posedy.api",
    "export_onnx": "posedy.export.onnx",
    "fuse": "posedy.export.fuse",
    "list_backbones": "posedy.models.registry",
    "list_codecs": "posedy.codecs",
    "list_detectors": "posedy.inference.detectors",
    "list_heads": "posedy.models.registry",
    "list_models": "posedy.models.registry",
    "load_checkpoint": "posedy.models.pretrained",
    "read_coco": "posedy.data.coco",
    "register_backbone": "posedy.models.registry",
    "register_codec": "posedy.codecs",
    "register_detector": "posedy.inference.detectors",
    "register_head": "posedy.models.registry",
    "save_checkpoint": "posedy.models.pretrained",
    "set_temperature": "posedy.models.dynamic_conv",
    "smooth_tracks": "posedy.inference.offline_smoothing",
    "static_conv": "posedy.models.blocks",
    "to_dynamic": "posedy.models.conversion",
    "to_static": "posedy.models.conversion",
    "train": "posedy.api",
}

__all__ = [
    "COCO17",
    "Backbone",
    "CocoPersons",
    "Codec",
    "DynamicConv2d",
    "ExportReport",
    "Metrics",
    "Pose",
    "PoseEstimator",
    "PoseNet",
    "PoseTracker",
    "Poses",
    "Skeleton",
    "TrackTable",
    "TrackedPoses",
    "__version__",
    "create_model",
    "evaluate",
    "export_onnx",
    "fuse",
    "list_backbones",
    "list_codecs",
    "list_detectors",
    "list_heads",
    "list_models",
    "load_checkpoint",
    "read_coco",
    "register_backbone",
    "register_codec",
    "register_detector",
    "register_head",
    "save_checkpoint",
    "set_temperature",
    "smooth_tracks",
    "static_conv",
    "to_dynamic",
    "to_static",
    "train",
]

_configure_openmp()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.metadata.version("posedy")
    elif name in _HOMES:
        try:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        except ImportError as error:
            from posedy.remedies import find_remedy

            if remedy := find_remedy(error):
                raise ImportError(remedy, name=error.name, path=error.path) from error
            raise
    else:
        raise AttributeError(f"module 'posedy' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
