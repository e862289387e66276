"""One process alone: what is shared by many is as simple as it can be (test_distributed.py has several)."""

import pytest
import torch

from posedy.config import TrainConfig
from posedy.training.distributed import Processes, WorkerLostError


def test_alone_everything_is_its_own() -> None:
    processes = Processes(TrainConfig())
    assert (processes.rank, processes.count, processes.is_main) == (0, 1, True)
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(processes.sum(values), values)
    assert processes.same("anything")
    net = torch.nn.BatchNorm2d(3)
    processes.share_buffers(net)


def test_an_error_in_a_common_block_comes_through() -> None:
    processes = Processes(TrainConfig())
    with pytest.raises(FileNotFoundError, match="no such file"), processes.fail_together():
        raise FileNotFoundError("no such file")
    with processes.fail_together():
        pass


def test_alone_a_runtime_error_is_not_blamed_on_others() -> None:
    processes = Processes(TrainConfig())
    with pytest.raises(RuntimeError, match="Connection reset") as caught, processes.together():
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
def test_only_errors_of_torch_distributed_are_blamed_on_others(error: RuntimeError, is_lost: bool) -> None:
    processes = Processes(TrainConfig())
    processes.count = 2
    with pytest.raises(WorkerLostError if is_lost else RuntimeError) as caught, processes.together():
        raise error
    assert (caught.value.__cause__ if is_lost else caught.value) is error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which can")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sync_batch_norm": True}, "sync_batch_norm needs CUDA"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"cuda_graph": True}, "train.cuda_graph=true needs a CUDA GPU and one process, the device is cpu: set it"),
    ],
)
def test_what_cpus_cannot_do_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Processes(TrainConfig.model_validate(settings))
