"""Training in one process or in many, on one machine or on several: what differs is here."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm import tqdm

from posedy.config import Precision, TrainConfig
from posedy.system import computes_bf16

# Gloo's failures are plain RuntimeErrors that begin with a place in its source code, such as
# "[.../gloo/transport/tcp/pair.cc:561] Connection closed by peer"; a failed assertion begins with "[enforce fail at ".
_GLOO_TRANSPORT = re.compile(r"\[\S*gloo/transport/\S+:\d+\] ")


class WorkerLostError(ConnectionError):
    """Another process of the training has ended; why, it has said itself."""


class Processes:
    """The processes that train one network together, each with its device; one alone is the usual case.

    `torchrun` and `accelerate launch` tell each process its number; accelerate chooses devices. `precision` is what
    "auto" comes to.

    Args:
        config: precision, and what must divide by the number of processes.

    Raises:
        ValueError: if the batch does not divide by the number of processes, or the devices cannot do what is asked.
    """

    def __init__(self, config: TrainConfig) -> None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.precision: Precision = config.precision
        if config.precision == "auto":
            self.precision = "bf16" if computes_bf16(found or torch.device("cpu")) else "fp32"
        self.accelerator = Accelerator(
            cpu=found is None,  # without it, processes of torchrun on CPUs would not know of each other
            mixed_precision="no" if self.precision == "fp32" else self.precision,
        )
        self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        with self.fail_together():
            if config.batch_size % self.count:
                raise ValueError(f"train.batch_size={config.batch_size} does not divide by the {self.count} processes")
            if config.sync_batch_norm and self.device.type != "cuda":
                raise ValueError(f"train.sync_batch_norm needs CUDA GPUs, the device is {self.device}: set it to false")
            if config.cuda_graph and (self.device.type != "cuda" or self.count > 1):
                where = f"the device is {self.device}" if self.count == 1 else f"there are {self.count} processes"
                raise ValueError(f"train.cuda_graph=true needs a CUDA GPU and one process, {where}: set it to false")
            if config.precision == "fp16" and self.device.type == "cpu":
                raise ValueError("train.precision=fp16 needs a GPU, the device is cpu: use auto, bf16 or fp32")
        with self.fail_together():
            if not self.same(self.precision):
                raise ValueError(
                    "train.precision=auto comes to bf16 on some of the devices and to fp32 on others: use fp32"
                )

    def say(self, text: str) -> None:
        """Prints, once for all processes."""
        if self.is_main:
            tqdm.write(text)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """A block that fails in all processes if it fails in one.

        Rank 0 reports the error. Any other process ends silently after an OSError or a ValueError, which are about the
        input, and with its own traceback after an error of another type.

        Raises:
            Exception: what was raised in this process.
            ValueError: with the number and the message of another process that raised an OSError or a ValueError.
            WorkerLostError: with the same of a process that raised an error of another type, or if one has ended.
        """
        if self.count == 1:
            yield
            return
        error: Exception | None = None
        with self.together():
            try:
                yield
            except Exception as raised:
                if _is_lost_connection(raised):
                    raise
                error = raised
            failures = gather_object([None if error is None else _described(error)])
        failed = [(rank, *failure) for rank, failure in enumerate(failures) if failure is not None]
        if not failed:
            return
        if not self.is_main:
            time.sleep(1)  # rank 0 reports first; as soon as one process ends, the launcher ends all
            raise SystemExit(1) if error is None or _is_about_input(error) else error
        if error is not None:
            raise error
        rank, message, is_about_input = failed[0]
        raise (ValueError if is_about_input else WorkerLostError)(f"process {rank}: {message}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that needs the others.

        Raises:
            WorkerLostError: if one of them has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.count > 1 and _is_lost_connection(error):
                raise WorkerLostError("another process of this training has ended; its message tells why") from error
            raise

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in each of them."""
        return self.accelerator.reduce(values, "sum") if self.count > 1 else values

    def same(self, value: object) -> bool:
        """Whether a value is equal in all processes."""
        values = gather_object([value]) if self.count > 1 else [value]
        return all(other == values[0] for other in values)

    @torch.no_grad()
    def share_buffers(self, net: nn.Module) -> None:
        """Gives all processes the first one's buffers: running statistics differ, since each saw persons of its own."""
        if self.count > 1:
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, 0)


def _is_lost_connection(error: Exception) -> bool:
    """Whether an error is a failure of communication: NCCL and the store have types of their own, Gloo has messages."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and _GLOO_TRANSPORT.match(str(error)) is not None


def _is_about_input(error: Exception) -> bool:
    return isinstance(error, OSError | ValueError)


def _described(error: Exception) -> tuple[str, bool]:
    """The message of an error, with its type unless it is about the input, and whether it is."""
    is_about_input = _is_about_input(error)
    return str(error) if is_about_input else f"{type(error).__name__}: {error}", is_about_input
