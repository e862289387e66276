"""The processes of an evaluation or a detection: those that torchrun has started, or this one alone."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object

T = TypeVar("T")
_WAIT = timedelta(days=7)  # for the results of slower processes: those of the others would be lost


def join_processes() -> Accelerator | None:
    """Joins the processes that torchrun has started, by WORLD_SIZE and RANK; None if this process is alone.

    Raises:
        ValueError: if torchrun has not started them.
    """
    if (world_size := os.environ.get("WORLD_SIZE", "1")) == "1":
        return None
    if "MASTER_ADDR" not in os.environ:
        raise ValueError(
            f"the environment variable WORLD_SIZE is {world_size}, but MASTER_ADDR, which torchrun sets, is absent: "
            "start the command by torchrun, or unset WORLD_SIZE for one process"
        )
    # without cpu, CPU processes would not be joined
    return Accelerator(
        cpu=not torch.accelerator.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=_WAIT)]
    )


def is_main(accelerator: Accelerator | None) -> bool:
    """Returns whether this is the process that prints and writes."""
    return accelerator is None or accelerator.is_main_process


@contextlib.contextmanager
def printing_once(accelerator: Accelerator | None) -> Iterator[None]:
    """Leaves standard output to one of the processes within the block."""
    with contextlib.ExitStack() as stack:
        if not is_main(accelerator):
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))  # noqa: PTH123
        yield


def own_share(items: Sequence[T], accelerator: Accelerator | None, size: int) -> list[tuple[int, T]]:
    """Returns the share of this process with the index of each item: every n-th run of `size` consecutive items."""
    count, rank = (1, 0) if accelerator is None else (accelerator.num_processes, accelerator.process_index)
    return [(index, item) for index, item in enumerate(items) if index // size % count == rank]


def gather_items(items: list[tuple[int, T]], accelerator: Accelerator | None) -> list[T]:
    """Returns the items of all processes, in the order of their indices."""
    gathered = items if accelerator is None else gather_object(items)
    return [item for _, item in sorted(gathered, key=lambda pair: pair[0])]
