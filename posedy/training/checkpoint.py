"""Checkpoints of a run: written whole or not at all, of tensors and plain types only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from posedy.config import Config
from posedy.files import replacing
from posedy.weights.network_file import read_checkpoint

LAST = "last.pt"
BEST = "best.pt"

# What a checkpoint has beside the network when a run can go on from it.
_STATE_KEYS = (
    *("optimizer", "scaler", "epoch", "step", "num_crops", "loss_sum", "seconds", "numbers", "evaluated_epoch"),
    *("best_ap", "metrics", "protocol", "random", "config"),
)
# What may differ when a run goes on; everything else changes the mathematics.
_FREE_KEYS = (
    *("data.root", "data.boxes", "train.epochs", "train.workers", "eval.every", "eval.flip", "eval.batch_size"),
    *("eval.box_threshold", "eval.keypoint_threshold", "eval.nms", "eval.backend"),
)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint that takes the place of the file at `path` only once it is complete."""
    with replacing(path) as temporary:
        torch.save(dict(state), temporary)


def read_run(run: Path, config: Config) -> dict[str, Any]:
    """Reads the last checkpoint of a run that goes on.

    Raises:
        OSError: if there is none.
        ValueError: if it is of another kind or of an experiment with another mathematics; the differences are shown.
    """
    path = run / LAST
    state = read_checkpoint(path)
    missing = [key for key in _STATE_KEYS if key not in state]
    if missing:
        raise ValueError(
            f"{path} is not a checkpoint that a run can go on from (it has no {', '.join(missing)}); to start from its "
            f"weights: model.weights={path} and another --out"
        )
    before, now = _flat(state["config"]), _flat(config.model_dump(mode="json"))
    differences = [
        f"  {key}: {before.get(key)!r} in the run, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in _FREE_KEYS
    ]
    if differences:
        heading = f"{run} was trained with another configuration:"
        raise ValueError("\n".join([heading, *differences, "go on with its values, or use another --out"]))
    return state


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
