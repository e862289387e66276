"""Checkpoints of a run: written whole or not at all, of tensors and plain types only."""

from pathlib import Path
from typing import Any

import torch

from posedy.config import Config
from posedy.files import replacing

LAST = "last.pt"
BEST = "best.pt"

# What may differ when a run goes on; everything else changes the mathematics.
_FREE_KEYS = ("data.root", "data.boxes", "train.epochs", "train.workers", "eval.")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint that takes the place of the file at `path` only once it is complete."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def check_same_experiment(saved: dict[str, Any], config: Config, run: Path) -> None:
    """Refuses to go on with a run under a configuration that would change the mathematics.

    Raises:
        ValueError: with the keys that differ and both values.
    """
    before, now = _flat(saved), _flat(config.model_dump(mode="json"))
    differences = [
        f"  {key}: {before.get(key)!r} in the run, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(_FREE_KEYS)
    ]
    if differences:
        heading = f"{run} was trained with another configuration:"
        raise ValueError("\n".join([heading, *differences, "go on with its values, or use another --out"]))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
