"""Evaluation of classifiers: top-1 and top-5 on the central crops of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from posedy.config import ClassifierEvalConfig
from posedy.data.datasets import set_up_worker
from posedy.data.image_folder import ClassifierEvalDataset, LabeledImages
from posedy.models.pose_net import normalize_crops

CLASSIFIER_METRICS = ("top1", "top5")


@dataclass(frozen=True, eq=False)
class ClassifierTest:
    """The test of classifiers on the central crops of images.

    Attributes:
        images: the images.
        size: side S of the crops in pixels.
        config: the protocol.
        accelerator: the processes, of which each predicts a share of the images.
        workers: number of data loader workers.
        progress: whether to show a progress bar.
    """

    images: LabeledImages
    size: int
    config: ClassifierEvalConfig
    accelerator: Accelerator
    workers: int = 0
    progress: bool = False

    @property
    def protocol(self) -> str:
        """The protocol as a line of text."""
        return (
            f"{len(self.images)} images of {len(self.images.classes)} classes, central crop of {self.size}x{self.size} "
            f"of images resized to {round(self.config.resize * self.size)} on the shorter side"
        )

    def evaluate(self, net: nn.Module) -> dict[str, float]:
        """Computes the share of images, from 0 to 1, whose class is the first, and among the first five, of a network.

        Args:
            net: (N, 3, S, S) normalized RGB -> logits (N, C), on any device.
        """
        places = self.predict_ranks(net)
        counts = torch.stack([(places < 1).sum(), (places < 5).sum()]).to(self.accelerator.device)
        shares = [int(count) / len(self.images) for count in self.accelerator.reduce(counts, "sum")]
        return dict(zip(CLASSIFIER_METRICS, shares, strict=True))

    def predict_ranks(self, net: nn.Module) -> Tensor:
        """Returns how many classes a network ranks above each image's own (N,), of this process's images."""
        ranks = [torch.zeros(0, dtype=torch.long)]
        with tqdm(total=len(self.images), desc="test", unit="image", disable=None if self.progress else True) as bar:
            for batch in self._loader(self.workers):
                ranks.append(_ranks(self._predict(net, batch), batch["label"]))
                bar.update(len(ranks[-1]) * self.accelerator.num_processes)
        return torch.cat(ranks)

    def predict_first_batch(self, net: nn.Module) -> int:
        """Predicts the first batch, to measure the time; returns the number of its images."""
        return len(self._predict(net.eval(), next(iter(self._loader(workers=0)))))

    def _loader(self, workers: int) -> DataLoader[Any]:
        dataset = ClassifierEvalDataset(self.images, self.size, self.config.resize)
        share = range(self.accelerator.process_index, len(dataset), self.accelerator.num_processes)
        return DataLoader(
            Subset(dataset, share),
            self.config.batch_size,
            num_workers=workers,
            worker_init_fn=set_up_worker,
            generator=torch.Generator(),  # training draws from torch's own
        )

    @torch.no_grad()
    def _predict(self, net: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits (N, C) of a batch, on the CPU."""
        crops = batch["image"].permute(0, 2, 3, 1).to(next(net.parameters()).device)
        return net(normalize_crops(crops)).float().cpu()


def format_top(metrics: Mapping[str, float], protocol: str) -> str:
    """Formats top-1 and top-5 with their protocol as a line of text."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()) + f"; {protocol}"


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns how many classes have a higher logit than the label's (N,); NaN and ties count against the network."""
    own = logits.gather(1, labels[:, None])
    return (~(logits < own)).sum(dim=1) - 1 + own[:, 0].isnan()
