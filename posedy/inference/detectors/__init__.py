"""Person detectors, for images without given boxes."""

from posedy.inference.detectors.base import (
    CleanedDetector,
    Detector,
    FullImageDetector,
    check_detector,
    create_detector,
    list_detectors,
    register_detector,
)
from posedy.inference.detectors.torchvision import TorchvisionDetector

__all__ = [
    "CleanedDetector",
    "Detector",
    "FullImageDetector",
    "TorchvisionDetector",
    "check_detector",
    "create_detector",
    "list_detectors",
    "register_detector",
]
