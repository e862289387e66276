"""The benchmark of OpenMP's spin-waiting runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.lab.spin import busy_processes


def test_busy_processes_end_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Process(subprocess.Popen[bytes]):
        def __init__(self, command: list[str]) -> None:
            super().__init__(command)
            started.append(self)

    def fail_within_block() -> None:
        with busy_processes(2):
            assert [process.poll() for process in started] == [None, None]
            raise RuntimeError("stop")

    monkeypatch.setattr(subprocess, "Popen", Process)
    with pytest.raises(RuntimeError, match="stop"):
        fail_within_block()
    assert None not in [process.returncode for process in started]


@pytest.mark.slow
def test_table_has_a_row_for_each_setting_and_the_ratios() -> None:
    command = [sys.executable, "-m", "tools.lab.spin", "--poses", "2", "--busy", "1"]
    environment = os.environ | {"GOMP_SPINCOUNT": "10000"}
    root = Path(__file__).parents[2]
    process = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    lines = process.stdout.splitlines()
    assert [line.rsplit(maxsplit=3)[0] for line in lines[2:4]] == [
        "current (GOMP_SPINCOUNT=10000)",
        "GOMP_SPINCOUNT unset",
    ]
    assert len(lines) == 5
    for line in lines[2:]:
        assert all(float(number) > 0 for number in line.rsplit(maxsplit=2)[1:])
