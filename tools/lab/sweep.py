"""Tables of experiments: some configurations, each trained with several seeds, and what they reach."""

import argparse
import dataclasses
import difflib
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.state import PartialState

from posedy.cli.options import add_json, write_json
from posedy.config import Config, ConfigError, load_config, read_yaml
from posedy.files import read_csv, write_bytes_atomically, write_json_atomically
from posedy.system import keep_freed_memory
from posedy.training.trainer import Trainer
from tools.lab.entry import run_and_exit

_KEYS = ("config", "seeds", "rows")
_RESULT = "result.json"
_SHOWN = ("AP", "AP50")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The rows of a table and the seeds that each is trained with.

    Attributes:
        rows: name -> configuration (with whatever seed; it is replaced).
        seeds: at least one.
    """

    rows: Mapping[str, Config]
    seeds: Sequence[int]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run reached after its epochs (AP and AP50), and the minutes that its steps took."""

    row: str
    seed: int
    epochs: int
    metrics: Mapping[str, float]
    protocol: str
    minutes: float


def read_sweep(path: Path, config: Path | None = None, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep: `config`, a configuration file beside it that all rows share; `rows`, for each its settings.

        config: ../drawn/ablation.yaml
        seeds: [0, 1, 2]
        rows:
          static: [model.name=mobilenetv2_035-bneck]
          dynamic: [model.name=dy_mobilenetv2_035-dy_bneck]

    Args:
        path: the YAML file.
        config: taken in place of the file's own.
        overrides: `section.key=value` for all rows, stronger than their own.

    Raises:
        OSError: if a file cannot be read.
        ConfigError: if it is not a sweep or a configuration does not fit; the message names the row.
    """
    values = read_yaml(path)
    for key in values:
        if key not in _KEYS:
            nearest = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0)[0]
            raise ConfigError(f"{path}: unknown key {key!r}; the nearest valid key is {nearest!r}")
    rows, seeds = values.get("rows"), values.get("seeds", [0])
    if not isinstance(rows, dict) or not rows:
        raise ConfigError(f"{path}: rows is a mapping of names to lists of key=value, got {rows!r}")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path}: seeds is a list of whole numbers, got {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds are given twice in {seeds}")
    if config is None and "config" in values:
        config = path.parent / str(values["config"])
    configs = {}
    for name, settings in rows.items():
        if not isinstance(settings, list) or not all(isinstance(setting, str) for setting in settings):
            raise ConfigError(f"{path}: row {name!r} is a list of key=value, got {settings!r}")
        if any(setting.split("=")[0] == "train.seed" for setting in [*settings, *overrides]):
            raise ConfigError(
                f"{path}: row {name!r}: train.seed is none of a row's settings; name them in seeds: [...]"
            )
        try:
            configs[str(name)] = load_config(config, [*settings, *overrides])
        except ConfigError as error:
            raise ConfigError(f"{path}: row {name!r}: {error}") from None
    folders = [_slug(name) for name in configs]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"{path}: rows need names that differ in letters or digits, got {list(configs)}")
    protocols = {(row.eval.model_dump_json(), row.model.input_size) for row in configs.values()}
    if len(protocols) > 1:
        raise ConfigError(f"{path}: rows are compared by one protocol: their eval settings and input sizes must agree")
    precisions = {row.train.precision for row in configs.values()}
    if len(precisions) > 1:
        raise ConfigError(f"{path}: a process trains in one precision, the rows have {sorted(precisions)}")
    return Sweep(configs, seeds)


def run_sweep(sweep: Sweep, out: Path, progress: bool = True) -> dict[str, Any]:
    """Trains every row with every seed in a folder of its own, seed by seed, and keeps the table of what is done.

    A run that is finished is not trained again, one that was stopped goes on: the same call goes on after anything.

    Args:
        sweep: what to train.
        out: folder of the runs, table.md and sweep.json.
        progress: whether to show bars.

    Returns:
        The content of sweep.json.

    Raises:
        OSError, ValueError, ArithmeticError: as `Trainer` and `summarize` do.
    """
    runs = {(name, seed): out / f"{_slug(name)}-seed{seed}" for seed in sweep.seeds for name in sweep.rows}
    for (name, seed), run in runs.items():
        config = sweep.rows[name]
        seeded = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
        run.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(seeded, run, progress)
        trainer.say(f"\n{name}, seed {seed}: {run}")
        metrics = trainer.fit()
        if PartialState().is_main_process:
            minutes = sum(float(row["seconds"]) for row in read_csv(run / "metrics.csv")) / 60
            shown = {key: metrics[key] for key in _SHOWN}
            result = RunResult(name, seed, config.train.epochs, shown, trainer.state.protocol, minutes)
            write_json_atomically(run / _RESULT, dataclasses.asdict(result), indent=2)
            # Runs that were finished before stay in the table while their turn has not come again, unless they were
            # shorter.
            finished = [_read_result(done) for done in runs.values() if (done / _RESULT).is_file()]
            results = [done for done in finished if done.epochs == sweep.rows[done.row].train.epochs]
            table = format_sweep(results)
            write_bytes_atomically(out / "table.md", f"{table}\n".encode())
            write_json_atomically(out / "sweep.json", summarize(results), indent=2)
            trainer.say(f"\n{table}")
    PartialState().wait_for_everyone()
    return summarize([_read_result(run) for run in runs.values()])


def _read_result(run: Path) -> RunResult:
    return RunResult(**json.loads((run / _RESULT).read_text(encoding="utf-8")))


def summarize(results: Sequence[RunResult]) -> dict[str, Any]:
    """Per row AP and AP50, their mean and standard deviation over the seeds, and the gain on the first row.

    The gain is taken seed by seed, so that what a seed does to all rows does not count.

    Raises:
        ValueError: if the numbers were measured under different protocols, which one table cannot compare.
    """
    for result in results:
        if result.protocol != results[0].protocol:
            raise ValueError(
                f"{result.row}, seed {result.seed}, was measured with {result.protocol}; {results[0].row}, seed "
                f"{results[0].seed}, with {results[0].protocol}: a table compares numbers of one "
                "protocol; take its eval settings, or another --out"
            )
    first = {result.seed: result for result in results if result.row == results[0].row}
    rows = []
    for name in dict.fromkeys(result.row for result in results):
        of_row = [result for result in results if result.row == name]
        pairs = [(result, first[result.seed]) for result in of_row if result.seed in first]
        gains = [result.metrics["AP"] - other.metrics["AP"] for result, other in pairs]
        rows.append(
            {
                "row": name,
                "seeds": [result.seed for result in of_row],
                "AP": _mean_and_spread([result.metrics["AP"] for result in of_row]),
                "AP50": _mean_and_spread([result.metrics["AP50"] for result in of_row]),
                "gain": _mean_and_spread(gains) if gains else None,
                "minutes": max(result.minutes for result in of_row),
            }
        )
    return {"protocol": results[0].protocol, "rows": rows}


def format_sweep(results: Sequence[RunResult]) -> str:
    """The table in Markdown, under a line that names its protocol."""
    summary = summarize(results)
    lines = [
        f"After the last epoch, mean ± standard deviation over the seeds; {summary['protocol']}",
        "",
        "| | seeds | AP | gain | AP50 | minutes, at most |",
        "|---|---|---|---|---|---|",
    ]
    for index, row in enumerate(summary["rows"]):
        gain = _shown(row["gain"], "+") if index and row["gain"] else ""
        lines.append(
            f"| {row['row']} | {len(row['seeds'])} | {_shown(row['AP'])} | {gain} | {_shown(row['AP50'])} "
            f"| {row['minutes']:.1f} |"
        )
    return "\n".join(lines)


def _mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "values": list(values)}


def _shown(numbers: Mapping[str, Any], sign: str = "") -> str:
    spread = f" ± {numbers['std']:.3f}" if numbers["std"] is not None else ""
    return f"{numbers['mean']:{sign}.3f}{spread}"


def _slug(name: str) -> str:
    """A row's name as that of a folder."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def main(argv: list[str] | None = None) -> None:
    """Trains the rows of a table, each with several seeds; the same --out resumes where it stopped."""
    parser = argparse.ArgumentParser(prog="python -m tools.lab.sweep", description=main.__doc__)
    parser.add_argument("sweep", type=Path, help="a YAML file, such as configs/sweeps/table10.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of all rows")
    parser.add_argument("--config", type=Path, help="the configuration of all rows, in place of the file's own")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, table.md and sweep.json")
    add_json(parser)
    arguments = parser.parse_intermixed_args(argv)
    sweep = read_sweep(arguments.sweep, arguments.config, arguments.overrides)
    keep_freed_memory()
    write_json(arguments.json, run_sweep(sweep, arguments.out))


if __name__ == "__main__":
    run_and_exit(main, "sweep")
