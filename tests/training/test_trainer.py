"""Training loop: learning, exact resuming, clean stops and error reports."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from accelerate.state import AcceleratorState

from posedy.config import Config
from posedy.evaluation.coco_eval import METRIC_NAMES
from posedy.evaluation.evaluator import evaluate_model
from posedy.files import read_csv
from posedy.models.factory import create_model
from posedy.models.network_file import read_checkpoint, save_weights
from posedy.models.pose_net import PoseNet
from posedy.models.pretrained import load_checkpoint
from posedy.prediction import TorchModel
from posedy.training.checkpoint import BEST, LAST
from posedy.training.task import Evaluation
from posedy.training.trainer import NonFiniteLossError, Trainer, TrainingInterruptedError
from tools.lab.synthetic import generate_dataset

from .conftest import disable_plots

Experiment = Callable[..., Config]


def tensors(run: Path, name: str = LAST) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / name)["network"]["tensors"]


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_run_writes_all_files(experiment: Experiment, tmp_path: Path, plots: None) -> None:
    run = tmp_path / "run"
    config = experiment("eval.every=1", "train.temperature={start: 30, end: 10, epochs: 1}")
    metrics = Trainer(config, run, progress=False).fit()
    assert set(metrics) == {"AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"}
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["epochs"] == 2
    rows = read_csv(run / "metrics.csv")
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert [float(row["temperature"]) for row in rows] == [30, 10]
    assert all(float(row["loss"]) > 0 and row["AP"] for row in rows)
    assert list((run / "tensorboard").glob("events*"))
    assert (run / "curves.png").is_file()
    assert list((run / "pictures").glob("epoch-*.jpg"))
    last, best = load_checkpoint(run / LAST), load_checkpoint(run / BEST)
    assert last.name == best.name == config.model.name
    assert last.input_size == (32, 64)
    state = last.state_dict()
    temperatures = [value for name, value in state.items() if name.endswith("temperature")]
    assert temperatures
    assert all(value == 10 for value in temperatures)


@pytest.mark.slow
def test_training_ap_equals_evaluation_of_the_checkpoint(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment("train.precision=bf16", "train.lr=0.003", "eval.flip=true", "train.epochs=4")
    trainer = Trainer(config, tmp_path, progress=False)
    metrics = trainer.fit()
    result = evaluate_model(TorchModel(load_checkpoint(tmp_path / LAST)), trainer.task.data.val, None, config.eval)
    assert result.metrics == pytest.approx(metrics, nan_ok=True, abs=1e-12)


def test_training_lowers_the_loss(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment("train.epochs=6", "train.lr=0.003", "train.loss=cross_entropy", "model.output=softmax")
    Trainer(config, tmp_path, progress=False).fit()
    losses = [float(row["loss"]) for row in read_csv(tmp_path / "metrics.csv")]
    assert losses[-1] < losses[0] - 0.3


def evaluate_as(values: list[float], evaluated: list[dict[str, torch.Tensor]]) -> Callable[..., Evaluation]:
    """A task's evaluation with given values of all metrics, which records the tensors of the evaluated networks."""

    def evaluate(net: PoseNet, workers: int, progress: bool) -> Evaluation:
        evaluated.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return Evaluation(dict.fromkeys(METRIC_NAMES, values[len(evaluated) - 1]), "stub")

    return evaluate


def test_the_best_checkpoint_is_that_of_the_highest_ap(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(experiment("train.epochs=3", "train.batch_size=19", "eval.every=1"), tmp_path, progress=False)
    evaluated: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(trainer.task, "evaluate", evaluate_as([0.1, 0.5, 0.3], evaluated))
    trainer.fit()
    best, last = read_checkpoint(tmp_path / BEST), read_checkpoint(tmp_path / LAST)
    assert (best["epoch"], best["metrics"]["AP"]) == (2, 0.5)
    assert (last["epoch"], last["metrics"]["AP"], last["best_metric"]) == (3, 0.3, 0.5)
    assert_equal(tensors(tmp_path, BEST), evaluated[1])
    assert_equal(tensors(tmp_path), evaluated[2])


def test_the_moving_average_is_evaluated_and_saved(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment("train.epochs=1", "train.batch_size=19", "train.ema_decay=0.9")
    trainer = Trainer(config, tmp_path, progress=False)
    evaluated: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(trainer.task, "evaluate", evaluate_as([0.5], evaluated))
    trainer.fit()
    assert trainer.ema is not None
    average = dict(trainer.ema.net.state_dict())
    assert not torch.equal(average["head.heatmap.weight"], trainer.net.state_dict()["head.heatmap.weight"])
    for saved in (*evaluated, tensors(tmp_path, BEST), tensors(tmp_path, LAST)):
        assert_equal(saved, average)


RECIPES = {
    "the paper's": ("train.epochs=3", "train.schedule=step", "train.lr_drops=[2]"),
    "all options": (
        *(
            "train.epochs=4",
            "train.schedule=cosine",
            "train.warmup_steps=3",
            "train.ema_decay=0.9",
            "train.weight_decay=0.05",
        ),
        *("train.clip_gradients=1", "train.accumulation=2"),
        *("model.codec=unbiased", "train.temperature={start: 30, end: 1, epochs: 3}", "eval.every=2"),
        *("train.precision=auto", "augment.photometric=[{transform: ColorJitter}]", "train.workers=1"),
    ),
}


@pytest.mark.parametrize("recipe", ["the paper's", pytest.param("all options", marks=pytest.mark.slow)])
def test_resumed_run_equals_uninterrupted_run_exactly(experiment: Experiment, tmp_path: Path, recipe: str) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    config = experiment(*RECIPES[recipe])
    Trainer(config, whole, progress=False).fit()
    for stop_after_epochs in (1, None):
        Trainer(config, halves, progress=False).fit(stop_after_epochs=stop_after_epochs)
        assert read_checkpoint(halves / LAST)["epoch"] == (stop_after_epochs or config.train.epochs)
    assert_equal(tensors(whole), tensors(halves))
    one, other = read_checkpoint(whole / LAST), read_checkpoint(halves / LAST)
    assert one["metrics"] == other["metrics"]
    assert one["best_metric"] == other["best_metric"]
    if one["trained"] is not None:
        assert_equal(one["trained"], other["trained"])
    for key in ("loss", "lr", "temperature", "AP"):
        assert [row[key] for row in read_csv(whole / "metrics.csv")] == [
            row[key] for row in read_csv(halves / "metrics.csv")
        ]


@pytest.mark.slow
def test_finished_run_is_not_changed(experiment: Experiment, tmp_path: Path) -> None:
    first = Trainer(experiment(), tmp_path, progress=False).fit()
    before = (tmp_path / LAST).read_bytes()
    again = Trainer(experiment(), tmp_path, progress=False).fit()
    assert again == pytest.approx(first, nan_ok=True)
    assert (tmp_path / LAST).read_bytes() == before


@pytest.fixture(scope="module")
def whole(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    path = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as monkeypatch:
        disable_plots(monkeypatch)
        Trainer(experiment(), path, progress=False).fit()
    return path


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_within_an_epoch(
    experiment: Experiment, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "stopped"
    trainer = Trainer(experiment(), stopped, progress=False)
    step = trainer._train_step

    def interrupted_step(batch: dict[str, torch.Tensor], num_samples: int, lr: float) -> None:
        step(batch, num_samples, lr)
        if trainer.state.epoch == 1 and trainer.state.step == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer, "_train_step", interrupted_step)
    with pytest.raises(TrainingInterruptedError, match=r"1 epoch and 1 step"):
        trainer.fit()
    assert read_checkpoint(stopped / LAST)["step"] == 1
    Trainer(experiment(), stopped, progress=False).fit()
    assert_equal(tensors(whole), tensors(stopped))
    assert [row["loss"] for row in read_csv(whole / "metrics.csv")] == [
        row["loss"] for row in read_csv(stopped / "metrics.csv")
    ]


def test_non_finite_loss_stops_the_run_and_names_the_batch(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(experiment(), tmp_path, progress=False)
    annotation_ids: list[int] = []
    step = trainer._train_step

    def broken_step(batch: dict[str, torch.Tensor], num_samples: int, lr: float) -> None:
        if trainer.state.epoch == 1:
            annotation_ids.extend(batch["annotation_id"].tolist())
            with torch.no_grad():
                trainer.net.head.heatmap.bias.fill_(float("nan"))
        step(batch, num_samples, lr)

    monkeypatch.setattr(trainer, "_train_step", broken_step)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit()
    assert str(annotation_ids[:8]) in str(caught.value)
    assert "in epoch 2" in str(caught.value)
    assert all(value.isfinite().all() for value in tensors(tmp_path).values())


@pytest.mark.slow
def test_changed_config_is_rejected_with_the_differences(experiment: Experiment, tmp_path: Path) -> None:
    Trainer(experiment("train.epochs=1"), tmp_path, progress=False).fit()
    with pytest.raises(ValueError, match=r"train\.lr: 0\.001 in the run, 0\.01 now"):
        Trainer(experiment("train.lr=0.01"), tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"train\.epochs: 1 in the run, 2 now"):
        Trainer(experiment("train.epochs=2"), tmp_path, progress=False)
    allowed = ("train.epochs=2", "train.lr_drops=[1,1]", "eval.every=7", "train.workers=1")
    Trainer(experiment(*allowed), tmp_path, progress=False)


@pytest.mark.slow
def test_longer_run_logs_and_uses_the_remaining_learning_rates(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(experiment("train.lr_drops=[1,2]"), tmp_path, progress=False).fit()
    assert "learning rate: epochs 1: 0.001, 2: 0.0001" in capsys.readouterr().out
    Trainer(experiment("train.lr_drops=[1,2]", "train.epochs=3"), tmp_path, progress=False).fit()
    assert "learning rate: epochs 3: 1e-05" in capsys.readouterr().out
    assert [float(row["lr"]) for row in read_csv(tmp_path / "metrics.csv")] == pytest.approx([1e-3, 1e-4, 1e-5])


@pytest.mark.slow
def test_run_starts_from_weights_of_the_same_architecture(experiment: Experiment, tmp_path: Path) -> None:
    Trainer(experiment("train.epochs=1"), tmp_path / "a", progress=False).fit()
    start = tmp_path / "a" / LAST
    trainer = Trainer(experiment(f"model.weights={start}"), tmp_path / "b", progress=False)
    assert_equal(dict(trainer.net.state_dict()), tensors(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"last\.pt.*mobilenetv2_035-deconv"):
        Trainer(
            experiment(f"model.weights={start}", "model.name=mobilenetv2_035-deconv"), tmp_path / "c", progress=False
        )


@pytest.mark.slow
def test_new_tensors_of_pretrained_networks_follow_the_seed(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Static counterpart and ImageNet weights: only tensors missing in the file depend on the seed."""
    static, imagenet = tmp_path / "static.safetensors", tmp_path / "imagenet.pth"
    save_weights(create_model("mobilenetv2_035-fpn"), static)
    torch.save(torchvision.models.mobilenet_v2(weights=None, width_mult=0.35).state_dict(), imagenet)
    layer = "backbone.blocks.3.expand.0.weight"
    for path in (static, imagenet):
        starts = [
            Trainer(
                experiment("model.options={}", f"model.weights={path}", f"train.seed={seed}"),
                tmp_path / "run",
                progress=False,
            ).net.state_dict()
            for seed in (4, 4, 5)
        ]
        assert_equal(starts[0], starts[1])
        assert not torch.equal(starts[0][layer], starts[2][layer])
        torch.testing.assert_close(starts[0][layer].mean(dim=0), starts[2][layer].mean(dim=0))
        shared = {
            key: all(torch.equal(starts[0][key], start[key]) for start in starts)
            for key in ("backbone.stem.0.weight", "head.heatmap.weight")
        }
        assert shared == {"backbone.stem.0.weight": True, "head.heatmap.weight": path == static}
    printed = capsys.readouterr().out
    assert f"loaded pretrained weights {static}: " in printed
    assert f"loaded pretrained weights {imagenet}: " in printed


def test_validation_set_without_keypoints_is_rejected_before_training(
    experiment: Experiment, synthetic: Path, tmp_path: Path
) -> None:
    path = synthetic / "annotations" / "person_keypoints_val2017.json"
    record = json.loads(path.read_text())
    for annotation in record["annotations"]:
        annotation["keypoints"] = [0] * 51
        annotation["num_keypoints"] = 0
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"0 of .* annotations kept"):
        Trainer(experiment(f"data.val_annotations={empty}"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_non_finite_weights_are_not_saved(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(experiment(), tmp_path, progress=False)
    step = trainer._train_step

    def breaking_step(batch: dict[str, torch.Tensor], num_samples: int, lr: float) -> None:
        step(batch, num_samples, lr)
        if trainer.state.epoch == 1 and trainer.state.step == len(trainer.loader) - 1:
            trainer.net.head.heatmap.bias.data.fill_(float("inf"))

    monkeypatch.setattr(trainer, "_train_step", breaking_step)
    with pytest.raises(NonFiniteLossError, match=r"head\.heatmap\.bias"):
        trainer.fit()
    assert read_checkpoint(tmp_path / LAST)["epoch"] == 1


@pytest.mark.slow
def test_epoch_is_saved_before_its_evaluation(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = Trainer(experiment(), whole, progress=False).fit()
    trainer = Trainer(experiment(), killed, progress=False)

    def raise_memory_error(logger: object) -> None:
        raise MemoryError

    monkeypatch.setattr(trainer, "_evaluate", raise_memory_error)
    with pytest.raises(MemoryError):
        trainer.fit()
    assert read_checkpoint(killed / LAST)["epoch"] == 2
    assert Trainer(experiment(), killed, progress=False).fit() == pytest.approx(expected, nan_ok=True)
    assert [(row["epoch"], row["AP"]) for row in read_csv(whole / "metrics.csv")] == [
        (row["epoch"], row["AP"]) for row in read_csv(killed / "metrics.csv")
    ]


def test_save_minutes_saves_within_an_epoch(
    experiment: Experiment, whole: Path, tmp_path: Path, kill_in_epoch_2: Callable[[Trainer], None]
) -> None:
    killed = tmp_path / "killed"
    trainer = Trainer(experiment("train.save_minutes=0"), killed, progress=False)
    kill_in_epoch_2(trainer)
    Trainer(experiment(), killed, progress=False).fit()
    assert_equal(tensors(whole), tensors(killed))


@pytest.mark.slow
def test_other_dataset_is_rejected(experiment: Experiment, synthetic: Path, tmp_path: Path) -> None:
    Trainer(experiment("train.epochs=1"), tmp_path / "run", progress=False).fit()
    other = tmp_path / "other"
    generate_dataset(other, 3, 4, seed=9, processes=1)
    with pytest.raises(ValueError, match=r"datasets: 19 persons.* in the run, "):
        Trainer(experiment("train.epochs=2", f"data.root={other}"), tmp_path / "run", progress=False)


def test_validation_set_with_other_keypoints_is_rejected(
    experiment: Experiment, synthetic: Path, tmp_path: Path
) -> None:
    record = json.loads((synthetic / "annotations" / "person_keypoints_val2017.json").read_text())
    record["categories"][0]["keypoints"][5:7] = ["right_shoulder", "left_shoulder"]
    path = tmp_path / "renamed.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="right_shoulder"):
        Trainer(experiment(f"data.val_annotations={path}"), tmp_path / "run", progress=False)


_KILLS = 10
TRAIN = """
import sys
from pathlib import Path
from posedy.config import load_config
from posedy.training.trainer import Trainer
Trainer(load_config(sys.argv[1]), Path(sys.argv[2]), progress=False).fit()
"""


@pytest.mark.slow
def test_run_survives_ten_sigkills_at_random_times(experiment: Experiment, tmp_path: Path) -> None:
    """No file is ever broken, every restart resumes, and the weights are those of an uninterrupted run."""
    config = experiment("train.epochs=24", "eval.every=5", "train.ema_decay=0.9")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    Trainer(config, whole, progress=False).fit()
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    rng = np.random.default_rng(0)
    kills, epochs = 0, []
    while True:
        # One thread, as in this process: sums over more threads round differently.
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(path), str(killed)],
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        if kills < _KILLS:
            # At a random time after up to 3 checkpoints, or before the first one.
            writes = int(rng.integers(0, 4))
            for _ in range(writes):
                _wait_for_write(killed / LAST, process)
            time.sleep(rng.uniform(0, 0.3 if writes else 5.0))
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        for name in (LAST, BEST):
            if (killed / name).exists():
                state = read_checkpoint(killed / name)
                assert state["epoch"] >= (epochs[-1] if epochs and name == LAST else 0)
                if name == LAST:
                    epochs.append(state["epoch"])
        if process.returncode == 0 and kills == _KILLS:
            break
        assert process.returncode in (0, -signal.SIGKILL)
    print(f"killed {kills} times; completed epochs after each kill and at the end: {epochs}")
    assert len(set(epochs)) > 3
    assert_equal(tensors(whole), tensors(killed))
    assert [row["loss"] for row in read_csv(whole / "metrics.csv")] == [
        row["loss"] for row in read_csv(killed / "metrics.csv")
    ]


def _wait_for_write(path: Path, process: subprocess.Popen[bytes]) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
        time.sleep(0.005)


@pytest.mark.slow
def test_time_limit_ends_the_run_with_an_evaluation(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("posedy.training.loggers.time.perf_counter", lambda: 3.0 * next(clock))
    config = experiment("train.epochs=50", "train.minutes=2", "train.schedule=cosine", "train.batch_size=4")
    metrics = Trainer(config, tmp_path, progress=False).fit()
    assert "AP" in metrics
    rows = read_csv(tmp_path / "metrics.csv")
    assert 1 < len(rows) < 50
    assert f"train.minutes=2 ended the training after epoch {len(rows)} of 50" in capsys.readouterr().out
    assert float(rows[-1]["lr"]) == pytest.approx(0, abs=1e-6)
    assert rows[-1]["AP"]
    assert int(rows[-1]["step"]) - int(rows[-2]["step"]) < int(rows[0]["step"])  # cut short
    before = (tmp_path / LAST).read_bytes()
    Trainer(config, tmp_path, progress=False).fit()
    assert (tmp_path / LAST).read_bytes() == before


@pytest.mark.slow
def test_save_every_skips_epochs(experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = Trainer._save
    monkeypatch.setattr(Trainer, "_save", lambda self: (saved.append(self.state.epoch), save(self)))
    Trainer(experiment("train.epochs=3", "train.save_every=2"), tmp_path / "run", progress=False).fit()
    assert saved == [2, 3, 3]  # the last one before and after its evaluation
    assert len(read_csv(tmp_path / "run" / "metrics.csv")) == 3
    saved.clear()
    Trainer(experiment("train.epochs=5", "train.save_every=9"), tmp_path / "cut", progress=False).fit(1)
    assert saved == [1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="requires Unix process groups")
def test_signal_to_the_process_group_stops_cleanly(experiment: Experiment, tmp_path: Path) -> None:
    config = experiment("train.epochs=1000", "train.workers=2", "eval.every=1000")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    command = [
        sys.executable,
        "-m",
        "posedy.cli.main",
        "train",
        str(tmp_path / "config.yaml"),
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    _wait_for_write(tmp_path / "run" / LAST, process)
    os.killpg(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=120)[0].decode()
    assert process.returncode == 1
    assert "the same command resumes" in output
    assert "Traceback" not in output
    assert "killed by signal" not in output


@pytest.mark.slow
@pytest.mark.parametrize(("is_supported", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_follows_the_device_and_is_kept_by_the_run(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_supported: bool, precision: str
) -> None:
    config = experiment("train.precision=auto", "train.epochs=1")
    monkeypatch.setattr("posedy.training.distributed.supports_bf16", lambda device: is_supported)
    trainer = Trainer(config, tmp_path, progress=False)
    assert trainer.context.accelerator.mixed_precision == ("bf16" if is_supported else "no")
    trainer.fit()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["train"]["precision"] == precision
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr("posedy.training.distributed.supports_bf16", lambda device: not is_supported)
    with pytest.raises(ValueError, match=f"train.precision: '{precision}' in the run"):
        Trainer(config, tmp_path, progress=False)


@pytest.mark.slow
def test_accepted_changes_take_effect_and_reset_the_best_metric(experiment: Experiment, tmp_path: Path) -> None:
    Trainer(experiment("train.epochs=1"), tmp_path, progress=False).fit()
    assert read_checkpoint(tmp_path / LAST)["best_metric"] is not None
    changed = experiment("train.epochs=2", "train.weight_decay=0.05", "data.skeleton.sigmas=0.2")
    trainer = Trainer(changed, tmp_path, progress=False, accept_changes=True)
    assert [group["weight_decay"] for group in trainer.training_step.optimizer.param_groups] == [0.05, 0.0]
    assert trainer.state.best_metric is None


def test_finished_run_is_reported(experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment("train.epochs=1")
    Trainer(config, tmp_path, progress=False).fit()
    assert "already finished" not in capsys.readouterr().out
    Trainer(config, tmp_path, progress=False).fit()
    assert "already finished" in capsys.readouterr().out


@pytest.mark.slow
def test_model_options_are_used_and_saved(experiment: Experiment, tmp_path: Path) -> None:
    options = "model.options={in_channels: 1, dynamic_layers: [project], depth: 0.5}"
    Trainer(experiment("train.epochs=1", options), tmp_path, progress=False).fit()
    net = load_checkpoint(tmp_path / "best.pt")
    assert {name: net.options[name] for name in ("in_channels", "dynamic_layers", "depth")} == {
        **{"in_channels": 1, "dynamic_layers": ["project"], "depth": 0.5}
    }


def test_unsupported_in_channels_are_rejected(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got in_channels=4"):
        Trainer(experiment("model.options={in_channels: 4}"), tmp_path, progress=False)


@pytest.mark.slow
def test_resuming_does_not_need_the_initial_weights(experiment: Experiment, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    config = experiment("train.epochs=1", f"model.weights={start}")
    save_weights(create_model("dy_mobilenetv2_035-fpn", input_size=(32, 64), depth=0.34), start)
    expected = Trainer(config, tmp_path / "run", progress=False).fit()
    start.unlink()
    assert Trainer(config, tmp_path / "run", progress=False).fit() == expected
