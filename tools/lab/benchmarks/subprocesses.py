"""Processes of the benchmarks, each with its own number of threads."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from posedy.system import keep_freed_memory

_TASK = "POSEDY_BENCHMARK"


Rows = list[dict[str, Any]]


def run_in_subprocess(measure: Callable[[Mapping[str, Any]], Rows], task: Mapping[str, Any]) -> Rows:
    """Calls a function of a module in a new process and returns its rows.

    Args:
        measure: the function, from a task to rows in plain types.
        task: the task in plain types; `threads` is the number of threads of the process.

    Raises:
        RuntimeError: if the process fails.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(task["threads"]), _TASK: json.dumps(task)}
    call = f"run_task({measure.__module__!r}, {measure.__name__!r})"
    command = [sys.executable, "-c", f"from {__name__} import run_task; {call}"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the benchmark process of {task} failed; see its output above")
    return json.loads(done.stdout.splitlines()[-1])


def run_task(module: str, function: str) -> None:
    """Calls a function of a module with the task of this process, and prints its rows as JSON in the last line."""
    task = json.loads(os.environ[_TASK])
    keep_freed_memory()
    torch.set_num_threads(task["threads"])
    print(json.dumps(getattr(importlib.import_module(module), function)(task)))
