"""Person detectors, for images without given boxes."""

from posedy.inference.detectors.base import (
    BoxThresholds,
    CleanedDetector,
    Detections,
    Detector,
    FullImageDetector,
    check_detector,
    create_detector,
    detector_thresholds,
    list_detectors,
    register_detector,
)
from posedy.inference.detectors.nanodet import PersonDetector
from posedy.inference.detectors.torchvision import TorchvisionDetector

DEFAULT_DETECTOR = "posedy"
"""The name of the default detector."""

__all__ = [
    "DEFAULT_DETECTOR",
    "BoxThresholds",
    "CleanedDetector",
    "Detections",
    "Detector",
    "FullImageDetector",
    "PersonDetector",
    "TorchvisionDetector",
    "check_detector",
    "create_detector",
    "detector_thresholds",
    "list_detectors",
    "register_detector",
]
