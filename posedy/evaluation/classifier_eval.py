"""Evaluation of classifiers: top-1 and top-5 on the central crops of images."""

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


def evaluate_classifier(
    net: nn.Module,
    images: LabeledImages,
    size: int,
    config: ClassifierEvalConfig,
    accelerator: Accelerator,
    *,
    workers: int = 0,
    progress: bool = False,
) -> tuple[dict[str, float], str]:
    """Computes the share of images whose class is the first, and among the first five, of a network's logits.

    Args:
        net: (N, 3, S, S) normalized RGB -> logits (N, C), on the device.
        images: the images.
        size: side S of the crops in pixels.
        config: the protocol.
        accelerator: the processes, of which each predicts a share of the images.
        workers: number of data loader workers.
        progress: whether to show a progress bar.

    Returns:
        The metrics from 0 to 1, and the protocol as a line of text.
    """
    places = predict_ranks(net, images, size, config, accelerator, workers=workers, progress=progress)
    counts = torch.stack([(places < 1).sum(), (places < 5).sum()]).to(accelerator.device)
    top1, top5 = (int(count) / len(images) for count in accelerator.reduce(counts, "sum"))
    protocol = (
        f"{len(images)} images of {len(images.classes)} classes, central crop of {size}x{size} of images resized to "
        f"{round(config.resize * size)} on the shorter side"
    )
    return {"top1": top1, "top5": top5}, protocol


def predict_ranks(
    net: nn.Module,
    images: LabeledImages,
    size: int,
    config: ClassifierEvalConfig,
    accelerator: Accelerator,
    *,
    workers: int = 0,
    progress: bool = False,
) -> Tensor:
    """Returns the number of classes that a network ranks above each image's own (N,), of this process's images.

    For the arguments see `evaluate_classifier`.
    """
    ranks = [torch.zeros(0, dtype=torch.long)]
    with tqdm(total=len(images), desc="test", unit="image", disable=None if progress else True) as bar:
        for batch in _make_loader(images, size, config, accelerator, workers):
            ranks.append(_ranks(_predict(net, batch, accelerator.device), batch["label"]))
            bar.update(len(ranks[-1]) * accelerator.num_processes)
    return torch.cat(ranks)


def predict_first_batch(
    net: nn.Module, images: LabeledImages, size: int, config: ClassifierEvalConfig, accelerator: Accelerator
) -> int:
    """Predicts the first batch, to measure the time; returns the number of its images."""
    batch = next(iter(_make_loader(images, size, config, accelerator, 0)))
    return len(_predict(net.eval(), batch, accelerator.device))


def _make_loader(
    images: LabeledImages, size: int, config: ClassifierEvalConfig, accelerator: Accelerator, workers: int
) -> DataLoader[Any]:
    dataset = ClassifierEvalDataset(images, size, config.resize)
    share = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    return DataLoader(
        Subset(dataset, share),
        config.batch_size,
        num_workers=workers,
        worker_init_fn=set_up_worker,
        generator=torch.Generator(),  # training draws from torch's own
    )


@torch.no_grad()
def _predict(net: nn.Module, batch: dict[str, Tensor], device: torch.device) -> Tensor:
    """Returns the logits (N, C) of a batch, on the CPU."""
    return net(normalize_crops(batch["image"].permute(0, 2, 3, 1).to(device))).float().cpu()


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns how many classes have a higher logit than the label's (N,); NaN and ties count against the network."""
    own = logits.gather(1, labels[:, None])
    return (~(logits < own)).sum(dim=1) - 1 + own[:, 0].isnan()
