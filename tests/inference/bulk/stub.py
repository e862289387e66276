"""An estimator without networks, for runs of many images; also a program that runs it: INPUT OUT FORMAT [SECONDS]."""

import hashlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posedy.codecs import create_codec
from posedy.inference.bulk import predict_bulk
from posedy.inference.crop_batch import CropBatch
from posedy.prediction import Model
from posedy.skeleton import COCO17

SIZE = (32, 32)


class StubModel(Model):
    """Keypoints and scores that depend on the pixels of the crop, and on no other crop of the batch."""

    runtime = "torch"

    def __init__(self) -> None:
        codec = create_codec("msra", SIZE)
        super().__init__(
            name="stub", options={}, skeleton=COCO17, num_keypoints=17, codec=codec, device=torch.device("cpu")
        )
        self.batches: list[int] = []

    def __call__(self, crops: NDArray[np.uint8], flip_permutation: Sequence[int] | None = None) -> dict[str, Any]:
        self.batches.append(len(crops))
        means = torch.from_numpy(crops.astype(np.float32)).mean(dim=(1, 2)) / 8  # (N, 3)
        points = torch.stack([means[:, :2] + k for k in range(17)], dim=1)
        return {"keypoints": points, "scores": (means[:, :1] / 32).expand(-1, 17).contiguous()}

    def decode(self, outputs: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return outputs["keypoints"].numpy(), outputs["scores"].numpy()


class StubEstimator:
    """Finds up to three persons, as many as the first pixel says; fails for images whose first pixel is black."""

    name = "stub"
    skeleton = COCO17

    def __init__(self, seconds: float = 0.0, batch_size: int = 8) -> None:
        self.model, self.seconds, self.batch_size = StubModel(), seconds, batch_size

    def detect_many(self, images_bgr: Sequence[NDArray[np.uint8]]) -> list[Any]:
        time.sleep(self.seconds * len(images_bgr))
        return [self._detect(image) for image in images_bgr]

    def _detect(self, image: NDArray[np.uint8]) -> Any:
        if not image[0, 0].any():
            return ValueError("the detector saw only darkness")
        height, width = image.shape[:2]
        count = int(hashlib.md5(image.tobytes()).hexdigest(), 16) % 4
        boxes = [[n, n, width - n, height - n] for n in range(count)]
        return np.array(boxes, np.float32).reshape(-1, 4), np.linspace(0.9, 0.5, count).astype(np.float32)

    def new_batch(self) -> CropBatch:
        return CropBatch(self.model, self.skeleton, None, self.batch_size)


if __name__ == "__main__":
    import os

    predict_bulk(
        [sys.argv[1]],
        sys.argv[2],
        StubEstimator(float(sys.argv[4]) if len(sys.argv) > 4 else 0.0),  # type: ignore[arg-type]
        model="stub",
        settings={},
        format=sys.argv[3],
        workers=2,
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
    )
    if sys.platform == "linux":
        import resource

        print("peak MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
