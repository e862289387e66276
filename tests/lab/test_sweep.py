import json
import statistics
from pathlib import Path

import pytest

from posedy.config import ConfigError
from posedy.models.factory import create_backbone, create_model
from posedy.models.meta import meta_device
from posedy.training.interrupt import TrainingInterruptedError
from posedy.training.pose_task import PoseTask
from posedy.training.run_lock import RunFolderInUseError, lock_run_folder
from posedy.training.trainer import NonFiniteLossError, Trainer
from tools.lab.sweep import RunResult, format_sweep, read_sweep, run_sweep, summarize

REPOSITORY = Path(__file__).parents[2]
QUICK = """
model: {input_size: [32, 64]}
train: {epochs: 1, batch_size: 8, workers: 0}
eval: {flip: false}
augment: {half_body_probability: 0}
"""
ROWS = """
config: quick.yaml
seeds: [3, 5]
rows:
  static: [model.name=mobilenetv2_035-fpn]
  K = 2: [model.name=dy_mobilenetv2_035-fpn, model.num_kernels=2]
"""


def write_sweep(folder: Path, text: str = ROWS) -> Path:
    (folder / "quick.yaml").write_text(QUICK)
    path = folder / "table.yaml"
    path.write_text(text)
    return path


def test_rows_override_the_base_configuration(tmp_path: Path) -> None:
    sweep = read_sweep(write_sweep(tmp_path), overrides=["train.lr=0.5"])
    assert list(sweep.rows) == ["static", "K = 2"]
    assert list(sweep.seeds) == [3, 5]
    assert [config.model.name for config in sweep.rows.values()] == [
        "mobilenetv2_035-fpn",
        "dy_mobilenetv2_035-fpn",
    ]
    assert sweep.rows["K = 2"].model.num_kernels == 2
    for config in sweep.rows.values():
        assert (config.train.epochs, config.train.lr, config.model.input_size) == (1, 0.5, (32, 64))


def test_rows_may_continue_runs_of_the_same_seed(tmp_path: Path) -> None:
    row = "  static: [model.name=mobilenetv2_035-fpn"
    text = ROWS.replace(row, row + ', "model.weights=start/static-seed{seed}/last.pt"')
    sweep = read_sweep(write_sweep(tmp_path, text))
    for seed in (3, 5):
        config = sweep.config("static", seed)
        assert (config.model.weights, config.train.seed) == (Path(f"start/static-seed{seed}/last.pt"), seed)
        assert sweep.config("K = 2", seed).model.weights is None


def test_config_argument_replaces_the_base_configuration(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("train: {epochs: 7}")
    sweep = read_sweep(write_sweep(tmp_path), other)
    assert sweep.rows["static"].train.epochs == 7
    assert sweep.rows["static"].model.input_size == (192, 256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows"),
        ("rows: [a]", "rows"),
        ("rows: {a: train.lr=1}", "row 'a'.*list of key=value"),
        ("rows: {a: [train.l=1]}", r"row 'a': .*'train.l'.*'train.lr'"),
        ("rows: {a: []}\nseed: [1]", "unknown key 'seed'; the nearest valid key is 'seeds'"),
        ("rows: {a: []}\nseeds: 3", "seeds.*got 3"),
        ("rows: {a: []}\nseeds: [1, 1]", "seeds.*unique"),
        ("rows: {a: []}\nseeds: [-1]", "seeds.*-1"),
        ("rows: {a b: [], A-B: []}", "a b.*A-B"),
        ("rows: {a: [], b: [train.precision=bf16]}", "train.precision"),
        ("rows: {a: [], b: [eval.flip=false]}", "eval settings and input size"),
        ("rows: {a: [], b: ['model.input_size=[64, 64]']}", "eval settings and input size"),
        ("rows: {a: [train.seed=3]}", "row 'a': train.seed"),
        ("rows: {a: [], a: [train.lr=1]}", "'a'"),
    ],
)
def test_invalid_sweeps_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_sweep(write_sweep(tmp_path, text))


def test_missing_base_configuration_is_reported(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nowhere\.yaml"):
        read_sweep(write_sweep(tmp_path, "config: nowhere.yaml\nrows: {a: []}"))


@pytest.mark.slow
def test_interrupted_sweep_resumes_with_the_same_metrics(tmp_path: Path, synthetic: Path, monkeypatch) -> None:
    sweep = read_sweep(write_sweep(tmp_path), overrides=[f"data.root={synthetic}"])
    expected = run_sweep(sweep, tmp_path / "a", progress=False)
    fit, calls = Trainer.fit, []

    def stop_at_third(trainer: Trainer) -> dict[str, float]:
        calls.append(trainer.run.name)
        if len(calls) == 3:
            raise TrainingInterruptedError("stopped")
        return fit(trainer)

    monkeypatch.setattr(Trainer, "fit", stop_at_third)
    with pytest.raises(TrainingInterruptedError):
        run_sweep(sweep, tmp_path / "b", progress=False)
    assert [row["seeds"] for row in json.loads((tmp_path / "b" / "sweep.json").read_text())["rows"]] == [[3], [3]]
    trained = (tmp_path / "b" / "static-seed3" / "last.pt").stat().st_mtime_ns
    again = run_sweep(sweep, tmp_path / "b", progress=False)
    assert calls == ["static-seed3", "k-2-seed3", "static-seed5", *calls[:2], "static-seed5", "k-2-seed5"]
    assert (tmp_path / "b" / "static-seed3" / "last.pt").stat().st_mtime_ns == trained
    for row, expected_row in zip(again["rows"], expected["rows"], strict=True):
        assert all(row[key] == expected_row[key] for key in ("row", "seeds", "AP"))
    assert again["protocol"].startswith("boxes=gt")
    assert json.loads((tmp_path / "b" / "sweep.json").read_text()) == again


def result(row: str, seed: int, ap: float) -> RunResult:
    return RunResult(row, seed, 4, {"AP": ap, "AP50": 2 * ap}, "boxes=gt", 3.0 + seed)


def test_gain_is_computed_seed_by_seed() -> None:
    values = {("a", 0): 0.1, ("a", 1): 0.3, ("b", 0): 0.15, ("b", 1): 0.37}
    results = [result(row, seed, ap) for (row, seed), ap in values.items()]
    first, second = summarize(results, ["a", "b"])["rows"]
    assert first["gain"]["values"] == [0, 0]
    assert second["gain"]["mean"] == pytest.approx(0.06)
    assert second["gain"]["std"] == pytest.approx(statistics.stdev([0.05, 0.07]))
    assert second["AP"]["mean"] == pytest.approx(0.26)
    assert second["minutes"] == 4.0
    table = format_sweep(results, ["a", "b"])
    assert "| a | 2 | 0.200 ± 0.141 |  | 0.400 ± 0.283 | 4.0 |" in table
    assert "| b | 2 | 0.260 ± 0.156 | +0.060 ± 0.014 (-0.067 to +0.187) |" in table
    assert "boxes=gt" in table.splitlines()[0]


def test_one_seed_has_no_standard_deviation() -> None:
    table = format_sweep([result("a", 0, 0.1), result("b", 0, 0.2)], ["a", "b"])
    assert "±" not in table.split("|", 1)[1]
    assert "| b | 1 | 0.200 | +0.100 | 0.400 | 3.0 |" in table


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_file_has_valid_models(path: Path) -> None:
    sweep = read_sweep(path)
    experiments = set()
    for config in sweep.rows.values():
        create = create_model if sweep.task is PoseTask else create_backbone
        with meta_device():
            create(config.model.name, num_kernels=config.model.num_kernels, **config.model.options)
        experiments.add(config.to_yaml())
    assert len(experiments) == len(sweep.rows)
    assert len(sweep.rows) * len(sweep.seeds) > 1


@pytest.mark.slow
def test_a_run_that_diverges_does_not_end_the_others(tmp_path: Path, synthetic: Path, monkeypatch) -> None:
    sweep = read_sweep(write_sweep(tmp_path), overrides=[f"data.root={synthetic}"])

    def fit(trainer: Trainer) -> dict[str, float]:
        if trainer.run.name == "static-seed3":
            raise NonFiniteLossError("the loss is nan")
        with pytest.raises(RunFolderInUseError), lock_run_folder(trainer.run):
            pass
        return {"AP": 0.1, "AP50": 0.5}

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(NonFiniteLossError, match=r"1 of 4 runs diverged: static, seed 3$"):
        run_sweep(sweep, tmp_path / "out", progress=False)
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"]
    assert [(row["row"], row["seeds"]) for row in rows] == [("static", [5]), ("K = 2", [3, 5])]
    assert [row["gain"]["values"] for row in rows] == [[0.0], [0.0]]  # of the seed that both rows have


def test_gains_are_over_the_first_row_if_its_first_run_is_missing() -> None:
    results = [result("b", 0, 0.3), result("a", 1, 0.1), result("b", 1, 0.2)]
    first, second = summarize(results, ["a", "b"])["rows"]
    assert (first["row"], first["seeds"], second["seeds"]) == ("a", [1], [0, 1])
    assert second["gain"]["values"] == pytest.approx([0.1])
    (alone,) = summarize(results[:1], ["a", "b"])["rows"]
    assert alone["gain"] is None
    assert "+" not in format_sweep(results[:1], ["a", "b"])


def test_different_protocols_are_rejected() -> None:
    other = RunResult("b", 0, 4, {"AP": 0.2, "AP50": 0.3}, "boxes=gt, flip=off", 1.0)
    with pytest.raises(ValueError, match=r"b, seed 0.*flip=off"):
        summarize([result("a", 0, 0.1), other], ["a", "b"])


@pytest.mark.slow
def test_table_keeps_finished_runs_after_resuming(tmp_path: Path, synthetic: Path, monkeypatch) -> None:
    sweep = read_sweep(write_sweep(tmp_path), overrides=[f"data.root={synthetic}"])
    monkeypatch.setattr(
        Trainer, "fit", lambda trainer: {"AP": trainer.config.train.seed / 10, "AP50": 0.5, "APm": float("nan")}
    )
    run_sweep(sweep, tmp_path / "out", progress=False)
    complete = (tmp_path / "out" / "table.md").read_text()
    done = []

    def stop_at_second(trainer: Trainer) -> dict[str, float]:
        done.append(trainer.run.name)
        if len(done) == 2:
            raise TrainingInterruptedError("stopped")
        return {"AP": trainer.config.train.seed / 10, "AP50": 0.5}

    monkeypatch.setattr(Trainer, "fit", stop_at_second)
    with pytest.raises(TrainingInterruptedError):
        run_sweep(sweep, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "table.md").read_text() == complete


@pytest.mark.slow
def test_shorter_earlier_runs_are_left_out_of_the_table(tmp_path: Path, synthetic: Path, monkeypatch) -> None:
    monkeypatch.setattr(Trainer, "fit", lambda trainer: {"AP": trainer.config.train.epochs / 10, "AP50": 0.5})
    path = write_sweep(tmp_path)
    run_sweep(read_sweep(path, overrides=[f"data.root={synthetic}"]), tmp_path / "out", progress=False)
    tables = []

    def fit(trainer: Trainer) -> dict[str, float]:
        tables.append((tmp_path / "out" / "sweep.json").read_text())
        return {"AP": trainer.config.train.epochs / 10, "AP50": 0.5}

    monkeypatch.setattr(Trainer, "fit", fit)
    longer = read_sweep(path, overrides=[f"data.root={synthetic}", "train.epochs=2"])
    summary = run_sweep(longer, tmp_path / "out", progress=False)
    assert [row["AP"]["values"] for row in json.loads(tables[1])["rows"]] == [[0.2]]
    assert [row["AP"]["values"] for row in summary["rows"]] == [[0.2, 0.2], [0.2, 0.2]]
