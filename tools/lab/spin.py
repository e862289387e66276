"""Benchmark of OpenMP's spin-waiting: time per pose with and without busy processes, current and default setting.

    python -m tools.lab.spin

Each measurement runs in a separate process. The current setting is taken from the environment, for example
`GOMP_SPINCOUNT=1000 OMP_NUM_THREADS=2 python -m tools.lab.spin`; without one it is posedy's default.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from posedy.cpu_threads import visible_cpus

_WARM_UP = 3


def time_poses(poses: int) -> float:
    """Returns the median time in seconds of one pose (one person, flip test) over `poses` measurements."""
    from posedy import PoseEstimator  # here because only the measuring processes need torch

    estimator = PoseEstimator(device="cpu", detector="full-image", runtime="torch")
    image = np.random.default_rng(0).integers(0, 256, (256, 192, 3), dtype=np.uint8)
    seconds = []
    for _ in range(_WARM_UP + poses):
        begin = time.perf_counter()
        estimator(image)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[_WARM_UP:])


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keeps `count` CPUs busy with one process each during the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _time_in_process(environment: Mapping[str, str], poses: int) -> float:
    program = f"from tools.lab.spin import time_poses; print(time_poses({poses}))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def _settings() -> dict[str, dict[str, str]]:
    """Returns the environments to compare by name."""
    current = dict(os.environ)  # including the values set by `import posedy`
    unset = {name: value for name, value in current.items() if name not in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    name = f"current (GOMP_SPINCOUNT={current.get('GOMP_SPINCOUNT', 'unset')})"
    return {name: current, "GOMP_SPINCOUNT unset": unset | {"POSEDY_KEEP_OMP": "1"}}


def main(argv: list[str] | None = None) -> None:
    """Prints the table of times and ratios."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.spin", description="Time poses beside busy processes.")
    parser.add_argument("--poses", type=int, default=20, metavar="N", help="timed poses per measurement (default: 20)")
    parser.add_argument("--busy", type=int, default=2, metavar="N", help="number of busy processes (default: 2)")
    arguments = parser.parse_args(argv)
    if min(arguments.poses, arguments.busy) < 1:
        parser.error("--poses and --busy must be at least 1")
    print(
        f"median of {arguments.poses} poses in ms, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}, "
        f"{visible_cpus()} CPUs"
    )
    beside = f"beside {arguments.busy}"
    print(f"{'setting':<32}{'alone':>10}{beside:>10}{'ratio':>8}")
    rows = []
    for name, environment in _settings().items():
        alone = _time_in_process(environment, arguments.poses)
        with busy_processes(arguments.busy):
            shared = _time_in_process(environment, arguments.poses)
        rows.append((alone, shared))
        print(f"{name:<32}{alone * 1e3:>10.1f}{shared * 1e3:>10.1f}{shared / alone:>8.2f}", flush=True)
    (alone, shared), (unset_alone, unset_shared) = rows
    print(f"{'unset / current':<32}{unset_alone / alone:>10.2f}{unset_shared / shared:>10.2f}")


if __name__ == "__main__":
    main()
