"""Distributed context of a single process; test_distributed.py tests several."""

import pytest
import torch

from posedy.config import TrainConfig
from posedy.training.distributed import DistributedContext, WorkerLostError


def test_single_process_collectives_are_identities() -> None:
    context = DistributedContext(TrainConfig())
    assert (context.rank, context.world_size, context.is_main) == (0, 1, True)
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(context.sum(values), values)
    assert context.all_equal("anything")
    net = torch.nn.BatchNorm2d(3)
    context.broadcast_buffers(net)


def test_fail_together_raises_the_original_error() -> None:
    context = DistributedContext(TrainConfig())
    with pytest.raises(FileNotFoundError, match="no such file"), context.fail_together():
        raise FileNotFoundError("no such file")
    with context.fail_together():
        pass


def test_single_process_runtime_error_is_not_a_lost_worker() -> None:
    context = DistributedContext(TrainConfig())
    with pytest.raises(RuntimeError, match="Connection reset") as caught, context.detect_lost_workers():
        raise RuntimeError("Connection reset by peer")
    assert not isinstance(caught.value, WorkerLostError)


GLOO = "[/build/third_party/gloo/gloo/transport/tcp/"


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError(f"{GLOO}pair.cc:561] Connection closed by peer [127.0.0.1]:12202. GLHF!"), True),
        (RuntimeError(f"{GLOO}pair.cc:520] writev [127.0.0.1]:12202: Connection reset by peer"), True),
        (RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 4000ms for recv operation to complete"), True),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), True),
        (RuntimeError("DataLoader timed out after 30 seconds"), False),
        (RuntimeError("CUDA error: the launch timed out and was terminated"), False),
        (RuntimeError("Broken pipe"), False),
        (RuntimeError("[enforce fail at /build/gloo/gloo/transport/tcp/pair.cc:446] op.preamble.length <= 4"), False),
    ],
    ids=str,
)
def test_detect_lost_workers_converts_connection_errors_only(error: RuntimeError, is_lost: bool) -> None:
    context = DistributedContext(TrainConfig())
    context.world_size = 2
    with pytest.raises(WorkerLostError if is_lost else RuntimeError) as caught, context.detect_lost_workers():
        raise error
    assert (caught.value.__cause__ if is_lost else caught.value) is error


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs support these settings")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sync_batch_norm": True}, "train.sync_batch_norm=true .* cpu"),
        ({"precision": "fp16"}, "train.precision=fp16 .* cpu"),
    ],
)
def test_settings_unsupported_on_cpu_are_rejected(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistributedContext(TrainConfig.model_validate(settings))
