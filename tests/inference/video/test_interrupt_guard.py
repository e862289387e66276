"""Ctrl-C and closed terminals while files are finished."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from posedy.inference.interrupt_guard import InterruptGuard

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGHUP")


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def hang_ups() -> Iterator[list[int]]:
    """The signals that a handler of SIGHUP receives, which raises KeyboardInterrupt."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGHUP, handle)
    yield received
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP"])
def test_the_first_signal_raises_and_later_ones_do_not(number: str, hang_ups: list[int]) -> None:
    handler = signal.getsignal(signal.Signals[number])
    with InterruptGuard() as guard:
        assert not guard.is_interrupted
        with pytest.raises(KeyboardInterrupt):
            send(signal.Signals[number])
        assert guard.is_interrupted
        send(signal.Signals[number])
    assert signal.getsignal(signal.Signals[number]) is handler


def test_no_signal_raises_after_close_but_a_closed_terminal_is_handled(hang_ups: list[int]) -> None:
    with InterruptGuard() as guard:
        guard.close()
        send(signal.SIGINT)
        assert guard.is_interrupted
        send(signal.SIGHUP)  # its handler drops what is printed
        assert hang_ups == [signal.SIGHUP]


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with InterruptGuard() as guard:
            send(signal.SIGHUP)
            assert not guard.is_interrupted
    finally:
        signal.signal(signal.SIGHUP, before)
