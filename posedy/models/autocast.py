"""Autocast on any device, including those without autocast, such as torch's meta device of shapes without values."""

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Returns the precision of autocast if it is enabled on a device, otherwise None."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


def disabled_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context in which operations on a device keep the precision of their arguments."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
