"""One process alone: what is shared by many is as simple as it can be (test_distributed.py has several)."""

import pytest
import torch

from posedy.config import TrainConfig
from posedy.training.processes import LostProcessError, Processes


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
    with pytest.raises(FileNotFoundError, match="no such file"), processes.all_or_none():
        raise FileNotFoundError("no such file")
    with processes.all_or_none():
        pass


def test_alone_a_runtime_error_is_not_blamed_on_others() -> None:
    processes = Processes(TrainConfig())
    with pytest.raises(RuntimeError, match="Connection reset") as caught, processes.together():
        raise RuntimeError("Connection reset by peer")
    assert not isinstance(caught.value, LostProcessError)


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
