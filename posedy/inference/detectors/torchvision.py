"""Torchvision's person detector."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.files import read_bytes
from posedy.inference.boxes import BOX_THRESHOLD, checked_box_threshold
from posedy.inference.detectors.base import register_detector
from posedy.system import choose_device


@register_detector("torchvision")
class TorchvisionDetector:
    """Torchvision's small Faster R-CNN (fasterrcnn_mobilenet_v3_large_320_fpn), trained on COCO's 80 categories.

    Args:
        weights: a file with its state dict; None downloads torchvision's weights at first use.
        device: as for `PoseEstimator`.
        threshold: boxes with lower scores, from 0 to 1, are dropped.

    Raises:
        OSError: if the weights cannot be read or downloaded.
        ValueError: if the file contains something else, the device is absent, or the threshold is not from 0 to 1.
    """

    _PERSON = 1

    def __init__(
        self, weights: str | Path | None = None, device: str = "auto", threshold: float = BOX_THRESHOLD
    ) -> None:
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn  # slow to import

        checked_box_threshold(threshold)
        self.device = choose_device(device)
        state = _download_weights() if weights is None else _read_state(Path(weights))
        net = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, box_score_thresh=threshold)
        try:
            net.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{weights} does not contain the weights of torchvision's fasterrcnn_mobilenet_v3_large_320_fpn: "
                f"{error!s:.300}"
            ) from error
        self._net = net.eval().to(self.device)

    @torch.inference_mode()
    def detect(self, image_bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Detects persons: boxes (P, 4) xyxy in image pixels and scores (P,), in descending order of scores."""
        rgb = torch.from_numpy(np.ascontiguousarray(image_bgr[..., ::-1])).to(self.device)
        output = self._net([rgb.permute(2, 0, 1).float() / 255])[0]
        boxes = output["boxes"].cpu().numpy().astype(np.float32)
        usable = (output["labels"].cpu().numpy() == self._PERSON) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return boxes[usable], output["scores"].cpu().numpy().astype(np.float32)[usable]


def _download_weights() -> dict[str, Any]:
    from torchvision.models.detection import FasterRCNN_MobileNet_V3_Large_320_FPN_Weights

    try:
        return dict(FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.DEFAULT.get_state_dict(check_hash=True))
    except (OSError, RuntimeError) as error:  # no network, or a truncated file
        raise OSError(
            f"the detector's weights could not be downloaded ({error}). Alternatives: give a file of them "
            "(--detector-weights FILE, TorchvisionDetector(weights=FILE)), boxes (--boxes FILE, --box x1,y1,x2,y2), or "
            'take the full image as the box of one person (--detector full-image, detector="full-image")'
        ) from error


def _read_state(path: Path) -> Any:
    data = read_bytes(path)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise any error
        raise ValueError(f"{path} is not a torch file that contains only tensors") from error
