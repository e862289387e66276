"""Distributed training: devices, collective operations and errors of one or several processes."""

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

from posedy.config import LoopConfig, Precision
from posedy.system import supports_bf16

# Gloo's errors are plain RuntimeErrors that start with a source location, such as
# "[.../gloo/transport/tcp/pair.cc:561] Connection closed by peer"; a failed assertion starts with "[enforce fail at ".
_GLOO_TRANSPORT = re.compile(r"\[\S*gloo/transport/\S+:\d+\] ")


class WorkerLostError(ConnectionError):
    """Another training process has ended; its own error message gives the reason."""


class DistributedContext:
    """The process group of a training run, as seen by one of its processes; often there is only one.

    `torchrun` and `accelerate launch` set the rank of each process; accelerate chooses the devices.

    Args:
        config: precision, and the settings to validate against the devices and the number of processes.

    Attributes:
        accelerator: accelerate's interface.
        rank: index of this process.
        world_size: number of processes.
        is_main: whether this is rank 0.
        device: device of this process.
        precision: the configured precision, where "auto" is resolved to "bf16" or "fp32".

    Raises:
        ValueError: if the batch size is not divisible by the number of processes, or the devices do not support a
            setting.
    """

    def __init__(self, config: LoopConfig) -> None:
        available = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.precision: Precision = config.precision
        if config.precision == "auto":
            self.precision = "bf16" if supports_bf16(available or torch.device("cpu")) else "fp32"
        self.accelerator = Accelerator(
            cpu=available is None,  # otherwise CPU processes of torchrun do not form a process group
            mixed_precision="no" if self.precision == "fp32" else self.precision,
        )
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        with self.fail_together():
            if config.batch_size % self.world_size:
                raise ValueError(
                    f"train.batch_size={config.batch_size} is not divisible by the number of processes, "
                    f"{self.world_size}"
                )
            if config.sync_batch_norm and self.device.type != "cuda":
                raise ValueError(
                    f"train.sync_batch_norm=true requires CUDA GPUs, got device {self.device}: set it to false"
                )
            if config.precision == "fp16" and self.device.type == "cpu":
                raise ValueError("train.precision=fp16 requires a GPU, got device cpu: use auto, bf16 or fp32")
        with self.fail_together():
            if not self.all_equal(self.precision):
                raise ValueError(
                    "train.precision=auto resolves to bf16 on some of the devices and to fp32 on others: use fp32"
                )

    def log(self, message: str) -> None:
        """Prints a message on rank 0."""
        if self.is_main:
            tqdm.write(message)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Context manager that fails in all processes if its block fails in one.

        Rank 0 reports the error. Any other process exits silently after an OSError or a ValueError, which concern the
        input, and with its own traceback after any other error.

        Raises:
            Exception: the error of this process.
            ValueError: on rank 0, with rank and message of another process that raised an OSError or a ValueError.
            WorkerLostError: on rank 0, with rank and message of another process that raised any other error; or if a
                process has ended.
        """
        if self.world_size == 1:
            yield
            return
        error: Exception | None = None
        with self.detect_lost_workers():
            try:
                yield
            except Exception as raised:
                if _is_lost_connection(raised):
                    raise
                error = raised
            gathered = gather_object([None if error is None else _describe_error(error)])
        failures = [(rank, *failure) for rank, failure in enumerate(gathered) if failure is not None]
        if not failures:
            return
        if not self.is_main:
            time.sleep(1)  # lets rank 0 report first; the launcher ends all processes as soon as one ends
            raise SystemExit(1) if error is None or _is_input_error(error) else error
        if error is not None:
            raise error
        rank, message, is_input_error = failures[0]
        raise (ValueError if is_input_error else WorkerLostError)(f"process {rank}: {message}")

    @contextmanager
    def detect_lost_workers(self) -> Iterator[None]:
        """Context manager for communication with other processes.

        Raises:
            WorkerLostError: if another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world_size > 1 and _is_lost_connection(error):
                raise WorkerLostError("another training process has ended; see its error message") from error
            raise

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum of a tensor over all processes, in each of them."""
        return self.accelerator.reduce(values, "sum") if self.world_size > 1 else values

    def all_equal(self, value: object) -> bool:
        """Returns whether a value is equal in all processes."""
        values = gather_object([value]) if self.world_size > 1 else [value]
        return all(other == values[0] for other in values)

    @torch.no_grad()
    def broadcast_buffers(self, net: nn.Module) -> None:
        """Copies rank 0's buffers to all processes, whose running statistics differ with their samples."""
        if self.world_size > 1:
            for buffer in net.buffers():
                torch.distributed.broadcast(buffer, 0)


def _is_lost_connection(error: Exception) -> bool:
    """Returns whether an error is a communication failure: by type for NCCL and the store, by message for Gloo."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and _GLOO_TRANSPORT.match(str(error)) is not None


def _is_input_error(error: Exception) -> bool:
    return isinstance(error, OSError | ValueError)


def _describe_error(error: Exception) -> tuple[str, bool]:
    """Returns the message of an error, with its type unless it is an input error, and whether it is an input error."""
    is_input_error = _is_input_error(error)
    return str(error) if is_input_error else f"{type(error).__name__}: {error}", is_input_error
