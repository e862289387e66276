"""Stop signals: the first is recorded, a second Ctrl-C interrupts at once."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from torch.utils.data import DataLoader

from posedy.data.datasets import set_up_worker
from posedy.training.interrupt import TrainingInterruptedError, catch_stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_recorded_and_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with catch_stop_signals() as stop_signal:
        assert not stop_signal.received
        os.kill(os.getpid(), number)
        assert stop_signal.received
    assert signal.getsignal(number) is before


@pytest.fixture
def default_handler() -> Iterator[None]:
    """Installs Python's default SIGINT handler, which a background process may lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_second_signal_interrupts_at_once() -> None:
    with catch_stop_signals() as stop_signal:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop_signal.received
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_further_sigterms_are_ignored() -> None:
    with catch_stop_signals() as stop_signal:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop_signal.received


@pytest.mark.slow
def test_workers_survive_the_sigterm_of_a_job() -> None:
    """SLURM sends it to the main process and to its workers."""
    loader = DataLoader(range(8), num_workers=1, worker_init_fn=set_up_worker, prefetch_factor=1)
    with catch_stop_signals() as stop_signal:
        batches = iter(loader)
        received = [int(next(batches))]
        (worker,) = multiprocessing.active_children()
        subprocess.run(["kill", "-TERM", str(worker.pid), str(os.getpid())], check=True)
        received += [int(batch) for batch in batches]
    assert stop_signal.received
    assert received == list(range(8))


FAILING = """
import sys
from torch.utils.data import DataLoader, Dataset
from posedy.data.datasets import set_up_worker

class Damaged(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        raise OSError("damaged")

held = DataLoader(range(8), num_workers=1, worker_init_fn=set_up_worker)
iterator = iter(held)  # alive at the end of the program
try:
    list(DataLoader(Damaged(), num_workers=1, worker_init_fn=set_up_worker))
except OSError as error:
    sys.exit(str(error).splitlines()[-1])
"""


@pytest.mark.slow
def test_a_program_ends_although_a_worker_failed() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("OSError: damaged")


def test_signals_are_not_handled_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGINT)
    received: list[bool] = []

    def run_in_thread() -> None:
        with catch_stop_signals() as stop_signal:
            received.append(stop_signal.received)

    thread = threading.Thread(target=run_in_thread)
    thread.start()
    thread.join()
    assert received == [False]
    assert signal.getsignal(signal.SIGINT) is before


def test_interruption_is_an_os_error_for_the_command_line() -> None:
    assert issubclass(TrainingInterruptedError, OSError)
    assert str(TrainingInterruptedError("stopped")) == "stopped"
