"""Modules traced to ONNX graphs."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_OPSET = 18


def trace(
    module: nn.Module,
    example: Tensor,
    path: Path,
    inputs: Sequence[str] = ("images",),
    outputs: Sequence[str] = ("features",),
    *,
    free_batch: bool = False,
) -> None:
    """Writes the graph that a module of one input computes.

    Args:
        module: in evaluation mode.
        example: an input; of two or more images if the batch is free.
        path: the ONNX file.
        inputs: names.
        outputs: names.
        free_batch: whether the graph takes any number of images, or as many as the example has.
    """
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            (example,),
            path,
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},) if free_batch else None,
            external_data=False,
            optimize=False,  # runtimes optimise what they load; it would double the time
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what concerns its own authors."""
    loggers: list[Any] = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.__trace")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
