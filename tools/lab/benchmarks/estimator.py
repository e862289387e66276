"""Benchmark of the default `PoseEstimator`: time per person, alone, beside busy processes, and in another checkout."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.lab.benchmarks.ratios import format_milliseconds, format_ratio, milliseconds, ratio
from tools.lab.benchmarks.subprocesses import REPOSITORY, run_in_checkout
from tools.lab.spin import busy_processes

_TIMES = Path(__file__).parent / "estimator_times.py"


def benchmark_estimator(
    checkpoint: str,
    persons: Sequence[int],
    busy: int,
    rounds: int,
    before: Path | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times calls of a `PoseEstimator` with given boxes, without and with the flip test.

    A round is one process of each checkout, alone and then beside busy processes, which keep one CPU busy each.

    Args:
        checkpoint: the network, for both checkouts.
        persons: numbers of persons in a call.
        busy: number of busy processes.
        rounds: number of rounds.
        before: the root of another checkout, such as a `git worktree` of an earlier commit.
        log: receives progress messages.

    Returns:
        The result in plain types; times are per person.

    Raises:
        RuntimeError: if a process fails.
    """
    trees = {"now": REPOSITORY} | ({"before": before.resolve()} if before is not None else {})
    alone: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    shared: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for index in range(rounds):
        log(f"round {index + 1} of {rounds}")
        for name in list(trees)[:: 1 if index % 2 == 0 else -1]:
            alone[name].append(_times(trees[name], checkpoint, persons))
            with busy_processes(busy):
                shared[name].append(_times(trees[name], checkpoint, persons))
    rows = []
    for call in alone["now"][0]:
        seconds = {name: [times[call] for times in alone[name]] for name in trees}
        row = {"call": call, "milliseconds": milliseconds(seconds["now"])}
        row["shared_to_alone"] = ratio([times[call] for times in shared["now"]], seconds["now"])
        if before is not None:
            row["to_before"] = ratio(seconds["now"], seconds["before"])
            row["before_shared_to_alone"] = ratio([times[call] for times in shared["before"]], seconds["before"])
        rows.append(row)
    return {"checkpoint": checkpoint, "busy": busy, "rounds": rounds, "rows": rows}


def _times(tree: Path, checkpoint: str, persons: Sequence[int]) -> dict[str, float]:
    """Returns the seconds per person of each call in a process of a checkout."""
    return json.loads(run_in_checkout(tree, [str(_TIMES), checkpoint, *map(str, persons)]).splitlines()[-1])


def format_estimator(report: Mapping[str, Any]) -> str:
    """Formats the result as a Markdown table."""
    busy = report["busy"]
    lines = [
        f"| persons, flip test | ms per person (quartiles) | relative beside {busy} busy processes | "
        "relative to before | before, relative beside busy processes |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        lines.append(
            f"| {row['call']} | {format_milliseconds(row['milliseconds'])} | {format_ratio(row['shared_to_alone'])} | "
            f"{format_ratio(row.get('to_before'))} | {format_ratio(row.get('before_shared_to_alone'))} |"
        )
    return "\n".join(lines)
