"""Processes of the benchmarks, each with its own number of threads."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

_TASK = "POSEDY_BENCHMARK"


def run_in_subprocess(module: str, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs `run_task()` of a module in a new process and returns the rows that it prints as JSON in its last line.

    Args:
        module: the name of the module.
        task: the task in plain types, which `read_task` returns in the process; `threads` is its number of threads.

    Raises:
        RuntimeError: if the process fails.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(task["threads"]), _TASK: json.dumps(task)}
    command = [sys.executable, "-c", f"from {module} import run_task; run_task()"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the benchmark process of {task} failed; see its output above")
    return json.loads(done.stdout.splitlines()[-1])


def read_task() -> dict[str, Any]:
    """Returns the task of this process."""
    return json.loads(os.environ[_TASK])
