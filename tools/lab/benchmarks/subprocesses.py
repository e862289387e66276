"""Processes of the benchmarks, each with its own number of threads."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from posedy.system import keep_freed_memory

REPOSITORY = Path(__file__).parents[3]
"""The root of this checkout."""
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


def run_in_checkout(root: Path, arguments: Sequence[str]) -> str:
    """Runs Python with the modules of a checkout and returns what it prints.

    Args:
        root: the root of the checkout, the working directory.
        arguments: arguments of Python, such as `-m posedy`.

    Raises:
        RuntimeError: if it fails.
    """
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {root}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def run_task(module: str, function: str) -> None:
    """Calls a function of a module with the task of this process, and prints its rows as JSON in the last line."""
    task = json.loads(os.environ[_TASK])
    keep_freed_memory()
    torch.set_num_threads(task["threads"])
    print(json.dumps(getattr(importlib.import_module(module), function)(task)))
