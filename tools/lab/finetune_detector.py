r"""Fine-tunes the person detector with images of kept aspect ratio on the real training set.

python -m tools.lab.real_set DATA --out data/real
python -m tools.lab.convert_nanodet nanodet.json --out runs/nanodet_g.safetensors
python -m tools.lab.finetune_detector --images DATA/coco/train2017 --initial runs/nanodet_g.safetensors \
    --out runs/detector
python -m tools.lab.detector_comparison runs/detector/tuned.safetensors --baseline runs/nanodet_g.safetensors

The first two commands prepare the labels and the initial weights, the third one trains, and the last one compares both
weights on the dev split. Images of the dev split, of data/coco_mini and of the annotation files in --exclude are not
trained on. The labels lack crowds and persons without keypoints; so boxes of the initial detector with scores of at
least 0.3 that match no label are ignored. They are computed once and written to OUT/detected.json.

The network starts from the weights --initial, by default those in the package; its first layers are frozen to save
time. Losses are those of `tools.lab.detector_losses`, the optimizer is Adam with a warm-up and a cosine schedule over
the steps or the minutes, whichever end first. OUT/tuned.safetensors has the moving average of the weights in float16,
OUT/curve.json its AP on the dev split. The same command resumes a run from OUT/last.pt; the time between its steps does
not count.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from posedy.files import atomic_write, write_json_atomically
from posedy.images import read_image, rgb_to_bgr
from posedy.inference.detectors.nanodet import PersonDetector
from posedy.models.nanodet import PERSON_WEIGHTS, NanoDet, load_nanodet, make_locations, normalize_images
from tools.lab.detector_comparison import describe, detect_persons, read_ground_truths
from tools.lab.detector_losses import DetectionLosses, detection_losses
from tools.lab.detector_samples import (
    TrainingImage,
    collect_images,
    epoch_batches,
    ids_of,
    load_batch,
    select_training_images,
)
from tools.lab.entry import run_and_exit

_WARMUP_STEPS = 50
_MAX_GRADIENT_NORM = 35.0
_EMA_WARMUP = 10
_LONGEST_STEP = 30.0  # seconds; a longer step was suspended
_DETECTED_SCORE = 0.05
_PRINT_STEPS = 20


class FineTuning:
    """The state of a run: the network, the moving average of its weights and the optimizer.

    Args:
        images: training images.
        out: folder of the run; with last.pt in it, the run is resumed.
        options: `lr`, `batch_size`, `steps`, `minutes`, `ema`, `frozen`, `seed`, see `main`.
        initial: the file of the initial weights.

    Raises:
        ValueError: if the run in the folder has other options.
    """

    def __init__(
        self, images: Sequence[TrainingImage], out: Path, options: dict[str, Any], initial: Path = PERSON_WEIGHTS
    ) -> None:
        self.images, self.out, self.options = images, out, options
        self.net = load_nanodet(initial).to(memory_format=torch.channels_last)
        freeze_first(self.net, options["frozen"])
        self.average = load_nanodet(initial)
        parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=options["lr"])
        self.step, self.minutes = 0, 0.0
        self.curve: list[dict[str, Any]] = []
        if (out / "last.pt").is_file():
            self._load(torch.load(out / "last.pt", weights_only=True))

    @property
    def progress(self) -> float:
        """The completed fraction of the run, at least 1 at its end."""
        return max(self.step / self.options["steps"], self.minutes / self.options["minutes"])

    def train_step(self) -> DetectionLosses:
        """Trains on the next batch and counts its time."""
        start = time.monotonic()
        epoch, index = divmod(self.step, -(-len(self.images) // self.options["batch_size"]))
        seed = self.options["seed"]
        batches = epoch_batches(self.images, self.options["batch_size"], np.random.default_rng([seed, epoch]))
        batch = [self.images[number] for number in batches[index]]
        pixels, targets = load_batch(batch, np.random.default_rng([seed, epoch, index]))
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        logits, bins = self.net(normalize_images(pixels))
        losses = detection_losses(logits, bins, make_locations(pixels.shape[2], pixels.shape[1]), targets)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), _MAX_GRADIENT_NORM, error_if_nonfinite=True)
        self.optimizer.step()
        self.step += 1
        decay = min(self.options["ema"], (1 + self.step) / (_EMA_WARMUP + self.step))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
        self.minutes += min(time.monotonic() - start, _LONGEST_STEP) / 60
        return DetectionLosses(*(loss.detach() for loss in losses))

    def _learning_rate(self) -> float:
        warmup = min(1.0, (self.step + 1) / _WARMUP_STEPS)
        return self.options["lr"] * warmup * (1 + math.cos(math.pi * min(self.progress, 1.0))) / 2

    def save(self) -> None:
        """Writes last.pt."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": (self.step, self.minutes, self.curve),
            "options": self.options,
        }
        with atomic_write(self.out / "last.pt") as temporary:
            torch.save(state, temporary)

    def _load(self, state: dict[str, Any]) -> None:
        if state["options"] != self.options:
            raise ValueError(
                f"{self.out} contains a run with options {state['options']}, got {self.options}: choose another folder"
            )
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.minutes, self.curve = state["progress"]

    def evaluate(self, annotations: Path, images: Path) -> None:
        """Writes the moving average to tuned.safetensors, and adds its metrics on the dev split to curve.json."""
        tensors = {name: tensor.half().contiguous() for name, tensor in self.average.state_dict().items()}
        with atomic_write(self.out / "tuned.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"network": "nanodet_g", "classes": "person"})
        row: dict[str, Any] = {"step": self.step, "minutes": self.minutes}
        ground_truths = read_ground_truths(annotations)
        results = detect_persons(self.out / "tuned.safetensors", ground_truths["labels"], images)
        row |= {name: describe(gt, results) for name, gt in ground_truths.items()}
        self.curve.append(row)
        write_json_atomically(self.out / "curve.json", self.curve)
        values = ", ".join(f"{name}: AP {row[name]['AP']:.4f} R@1 {row[name]['R@1']:.3f}" for name in ground_truths)
        print(f"step {self.step}, {self.minutes:.1f} minutes, {values}", flush=True)


def freeze_first(net: NanoDet, count: int) -> None:
    """Freezes the stem and the first stages, `count` parts in all."""
    for part in [net.stem, *net.stages][:count]:
        part.requires_grad_(False)


def detect_boxes(records: Sequence[dict[str, Any]], folder: Path, weights: Path) -> dict[str, list[list[float]]]:
    """Detects persons with some weights: {image id: [[x1, y1, x2, y2, score], ...]}."""
    detector = PersonDetector(threshold=_DETECTED_SCORE, device="cpu", weights=weights)
    detected = {}
    for record in tqdm(records, desc="detect", unit="image", disable=None):
        boxes, scores = detector.detect(rgb_to_bgr(read_image(folder / record["file_name"])))
        detected[str(record["id"])] = np.column_stack([boxes, scores]).round(3).tolist()
    return detected


def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tunes the detector and prints its AP on the dev split."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.finetune_detector",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    real = Path("data/real")
    parser.add_argument("--annotations", type=Path, default=real / "train.json", help="labels (default: %(default)s)")
    parser.add_argument("--images", type=Path, required=True, help="folder of their images")
    parser.add_argument("--exclude", type=Path, nargs="*", default=[], help="COCO files of images not to train on")
    parser.add_argument("--dev-annotations", type=Path, default=real / "dev.json", help="default: %(default)s")
    parser.add_argument("--dev-images", type=Path, default=real / "dev", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--initial", type=Path, default=PERSON_WEIGHTS, metavar="FILE", help="initial weights (default: the package's)"
    )
    parser.add_argument("--lr", type=float, default=1e-4, help="learning rate (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=30.0, help="training time (default: %(default)s)")
    parser.add_argument("--ema", type=float, default=0.995, help="decay of the average (default: %(default)s)")
    parser.add_argument("--frozen", type=int, default=2, help="frozen parts, 1 is the stem (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--save-minutes", type=float, default=10.0, help="between checkpoints (default: %(default)s)")
    parser.add_argument("--evaluations", type=int, default=4, help="on the dev split (default: %(default)s)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    excluded = {image_id for path in arguments.exclude for image_id in ids_of(path)}
    content = select_training_images(json.loads(arguments.annotations.read_bytes()), excluded)
    detected = arguments.out / "detected.json"
    if not detected.is_file():
        write_json_atomically(detected, detect_boxes(content["images"], arguments.images, arguments.initial))
    images = collect_images(content, arguments.images, json.loads(detected.read_bytes()))
    counts = (sum(len(boxes) for boxes in each) for each in zip(*((i.labeled, i.ignored) for i in images), strict=True))
    print(f"{len(images)} images, {' labeled and '.join(map(str, counts))} ignored boxes", flush=True)
    names = ("lr", "batch_size", "steps", "minutes", "ema", "frozen", "seed")
    run = FineTuning(images, arguments.out, {name: getattr(arguments, name) for name in names}, arguments.initial)
    saved, recent = run.minutes, []
    while run.progress < 1:
        recent.append(torch.stack(run.train_step()))
        if run.step % _PRINT_STEPS == 0:
            terms = "  ".join(f"{value:.4f}" for value in torch.stack(recent).mean(dim=0))
            print(f"step {run.step}, {run.minutes:.1f} minutes: quality, GIoU, distribution loss {terms}", flush=True)
            recent = []
        if run.progress >= (len(run.curve) + 1) / arguments.evaluations:
            run.evaluate(arguments.dev_annotations, arguments.dev_images)
            run.save()
            saved = run.minutes
        elif run.minutes - saved >= arguments.save_minutes:
            run.save()
            saved = run.minutes


if __name__ == "__main__":
    run_and_exit(main, "finetune_detector")
