"""Sweeps: trains several configurations with several seeds each, and tabulates their metrics."""

import argparse
import dataclasses
import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.state import PartialState

from posedy.cli.options import add_json, write_json
from posedy.config import ClassifierConfig, Config, ConfigError, load_classifier_config, load_config, read_yaml
from posedy.files import read_csv, write_bytes_atomically, write_json_atomically
from posedy.registration import nearest_name
from posedy.system import keep_freed_memory
from posedy.training.classifier_task import ClassifierTask
from posedy.training.pose_task import PoseTask
from posedy.training.run import open_trainer
from posedy.training.task import Task
from posedy.training.trainer import NonFiniteLossError
from tools.lab.entry import run_and_exit
from tools.lab.groups import interval_over_seeds

_KEYS = ("task", "config", "seeds", "rows")
_RESULT = "result.json"
_TASKS: dict[str, tuple[Callable[..., Config | ClassifierConfig], type[Task]]] = {
    "pose": (load_config, PoseTask),
    "classifier": (load_classifier_config, ClassifierTask),
}


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The configurations of a table and the seeds of each.

    Attributes:
        rows: name -> configuration; its seed and {seed} in its model.weights are replaced.
        seeds: at least one.
        task: what is trained.
    """

    rows: Mapping[str, Config | ClassifierConfig]
    seeds: Sequence[int]
    task: type[Task] = PoseTask

    def config(self, row: str, seed: int) -> Config | ClassifierConfig:
        """Returns the configuration of a row with a seed."""
        config = self.rows[row]
        weights = config.model.weights
        if weights is not None:
            weights = Path(str(weights).replace("{seed}", str(seed)))
        model = config.model.model_copy(update={"weights": weights})
        train = config.train.model_copy(update={"seed": seed})
        return config.model_copy(update={"model": model, "train": train})


@dataclasses.dataclass(frozen=True)
class RunResult:
    """Two metrics of a training run after its last epoch, and its training time in minutes."""

    row: str
    seed: int
    epochs: int
    metrics: Mapping[str, float]
    protocol: str
    minutes: float


def read_sweep(path: Path, config: Path | None = None, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep file: `config`, the base configuration, relative to the file; `rows`, the overrides of each row.

        config: ../synthetic/ablation.yaml
        seeds: [0, 1, 2]
        rows:
          static: [model.name=mobilenetv2_035-bneck]
          dynamic: [model.name=dy_mobilenetv2_035-dy_bneck]

    `task: classifier` trains classifiers; `seeds` is [0] if it is left out. In `model.weights` of a row {seed} is the
    seed, for rows that continue the runs of another sweep.

    Args:
        path: the YAML file.
        config: replaces the file's base configuration.
        overrides: `section.key=value` for all rows; they take precedence over the rows'.

    Raises:
        OSError: if a file cannot be read.
        ConfigError: if the file is not a sweep or a configuration is invalid; the message names the row.
    """
    values = read_yaml(path)
    for key in values:
        if key not in _KEYS:
            nearest = nearest_name(key, _KEYS)
            raise ConfigError(f"{path}: unknown key {key!r}; the nearest valid key is {nearest!r}")
    rows, seeds = values.get("rows"), values.get("seeds", [0])
    if not isinstance(rows, dict) or not rows:
        raise ConfigError(f"{path}: expected rows as a mapping of names to lists of key=value, got {rows!r}")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path}: expected seeds as a list of non-negative integers, got {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds must be unique, got {seeds}")
    task = values.get("task", "pose")
    if task not in _TASKS:
        raise ConfigError(f"{path}: expected task to be one of {list(_TASKS)}, got {task!r}")
    load, task_class = _TASKS[task]
    if config is None and "config" in values:
        config = path.parent / str(values["config"])
    configs = {}
    for name, settings in rows.items():
        if not isinstance(settings, list) or not all(isinstance(setting, str) for setting in settings):
            raise ConfigError(f"{path}: expected row {name!r} as a list of key=value, got {settings!r}")
        if any(setting.split("=")[0] == "train.seed" for setting in [*settings, *overrides]):
            raise ConfigError(
                f"{path}: row {name!r}: train.seed cannot be set in a row; list the seeds in seeds: [...]"
            )
        try:
            configs[str(name)] = load(config, [*settings, *overrides])
        except ConfigError as error:
            raise ConfigError(f"{path}: row {name!r}: {error}") from None
    folders = [_slug(name) for name in configs]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"{path}: row names must differ in letters or digits, got {list(configs)}")
    protocols = {(row.eval.model_dump_json(), row.model.input_size) for row in configs.values()}
    if len(protocols) > 1:
        raise ConfigError(f"{path}: all rows must have the same eval settings and input size")
    precisions = {row.train.precision for row in configs.values()}
    if len(precisions) > 1:
        raise ConfigError(f"{path}: all rows must have the same train.precision, got {sorted(precisions)}")
    return Sweep(configs, seeds, task_class)


def run_sweep(sweep: Sweep, out: Path, progress: bool = True) -> dict[str, Any]:
    """Trains every row with every seed in a separate folder, seed by seed, and writes the table after each run.

    The same call resumes after an interruption: finished runs are skipped, interrupted ones resumed. If a run diverges,
    the others are still trained.

    Args:
        sweep: the configurations and seeds.
        out: output folder for the runs, table.md and sweep.json.
        progress: whether to show progress bars.

    Returns:
        The content of sweep.json.

    Raises:
        OSError, ValueError: as `open_trainer` and `summarize` do.
        NonFiniteLossError: after the last run, if runs diverged; the table has the others. With several processes it
            ends the sweep.
    """
    runs = {(name, seed): out / f"{_slug(name)}-seed{seed}" for seed in sweep.seeds for name in sweep.rows}
    diverged = []
    for (name, seed), run in runs.items():
        config = sweep.config(name, seed)
        names = sweep.task.curves[:2]
        with open_trainer(config, run, progress, make_task=sweep.task) as trainer:
            trainer.log(f"\n{name}, seed {seed}: {run}")
            try:
                metrics = trainer.fit()
            except NonFiniteLossError as error:
                if trainer.context.world_size > 1:  # it may be that of one process, for which the others wait
                    raise
                trainer.log(f"{name}, seed {seed}: {error}")
                diverged.append(f"{name}, seed {seed}")
                continue
            if PartialState().is_main_process:
                minutes = sum(float(row["seconds"]) for row in read_csv(run / "metrics.csv")) / 60
                table_metrics = {key: metrics[key] for key in names}
                result = RunResult(name, seed, config.train.epochs, table_metrics, trainer.state.protocol, minutes)
                write_json_atomically(run / _RESULT, dataclasses.asdict(result), indent=2)
                # the table includes finished runs of earlier calls, unless they were shorter
                finished = [_read_result(done) for done in runs.values() if (done / _RESULT).is_file()]
                results = [done for done in finished if done.epochs == sweep.rows[done.row].train.epochs]
                rows = list(sweep.rows)
                table = format_sweep(results, rows)
                write_bytes_atomically(out / "table.md", f"{table}\n".encode())
                write_json_atomically(out / "sweep.json", summarize(results, rows), indent=2)
                trainer.log(f"\n{table}")
    PartialState().wait_for_everyone()
    if diverged:
        raise NonFiniteLossError(f"{len(diverged)} of {len(runs)} runs diverged: {'; '.join(diverged)}")
    return summarize([_read_result(run) for run in runs.values()], list(sweep.rows))


def _read_result(run: Path) -> RunResult:
    return RunResult(**json.loads((run / _RESULT).read_text(encoding="utf-8")))


def summarize(results: Sequence[RunResult], rows: Sequence[str]) -> dict[str, Any]:
    """Returns, for each row, the mean and standard deviation over seeds of both metrics and of the gain in the first.

    The gain over the first row is computed seed by seed, which removes effects of the seed common to all rows. With
    its standard deviation s over n seeds, the 95 % interval of its mean is +- t s / sqrt(n), with Student's t.

    Args:
        results: the finished runs.
        rows: the names of all rows in their order; the gain of seeds that the first one lacks is left out.

    Raises:
        ValueError: if the results have different evaluation protocols.
    """
    for result in results:
        if result.protocol != results[0].protocol:
            raise ValueError(
                f"{result.row}, seed {result.seed}: expected the evaluation protocol of {results[0].row}, seed "
                f"{results[0].seed} ({results[0].protocol}), got {result.protocol}; use the same eval settings or "
                "another --out"
            )
    first = {result.seed: result for result in results if result.row == rows[0]}
    first_metric, second_metric = results[0].metrics
    records = []
    for name in rows:
        of_row = [result for result in results if result.row == name]
        if not of_row:
            continue
        pairs = [(result, first[result.seed]) for result in of_row if result.seed in first]
        gains = [result.metrics[first_metric] - other.metrics[first_metric] for result, other in pairs]
        records.append(
            {
                "row": name,
                "seeds": [result.seed for result in of_row],
                first_metric: _mean_and_spread([result.metrics[first_metric] for result in of_row]),
                second_metric: _mean_and_spread([result.metrics[second_metric] for result in of_row]),
                "gain": _mean_and_spread(gains) if gains else None,
                "gain_interval": interval_over_seeds(gains) if len(gains) > 1 else None,
                "minutes": max(result.minutes for result in of_row),
            }
        )
    return {"protocol": results[0].protocol, "rows": records}


def format_sweep(results: Sequence[RunResult], rows: Sequence[str]) -> str:
    """Returns the table of `summarize` in Markdown, with the evaluation protocol above it."""
    summary = summarize(results, rows)
    first, second = results[0].metrics
    lines = [
        f"After the last epoch, mean ± standard deviation over the seeds; {summary['protocol']}",
        "",
        f"| | seeds | {first} | gain | {second} | max. minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in summary["rows"]:
        gain = _format(row["gain"], "+") if row["row"] != rows[0] and row["gain"] else ""
        if gain and row["gain_interval"]:
            low, high = row["gain_interval"]
            gain += f" ({low:+.3f} to {high:+.3f})"
        lines.append(
            f"| {row['row']} | {len(row['seeds'])} | {_format(row[first])} | {gain} | {_format(row[second])} "
            f"| {row['minutes']:.1f} |"
        )
    return "\n".join(lines)


def _mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "values": list(values)}


def _format(value: Mapping[str, Any], sign: str = "") -> str:
    spread = f" ± {value['std']:.3f}" if value["std"] is not None else ""
    return f"{value['mean']:{sign}.3f}{spread}"


def _slug(name: str) -> str:
    """Returns the folder name of a row."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def main(argv: list[str] | None = None) -> None:
    """Trains the rows of a table with several seeds each; the same command resumes after an interruption."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.sweep", description=main.__doc__)
    parser.add_argument("sweep", type=Path, help="a YAML file, such as configs/sweeps/table10.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides for all rows")
    parser.add_argument("--config", type=Path, help="replaces the base configuration of the file")
    parser.add_argument("--out", type=Path, required=True, help="output folder for the runs, table.md and sweep.json")
    add_json(parser)
    arguments = parser.parse_intermixed_args(argv)
    sweep = read_sweep(arguments.sweep, arguments.config, arguments.overrides)
    keep_freed_memory()
    try:
        result = run_sweep(sweep, arguments.out)
    except NonFiniteLossError as error:
        sys.exit(f"sweep: {error}")
    write_json(arguments.json, result)


if __name__ == "__main__":
    run_and_exit(main, "sweep")
