"""Several processes: same steps and evaluation as one process, error handling and resuming."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from posedy.config import Config
from posedy.data.coco import read_coco
from posedy.files import read_csv
from posedy.models.network_file import read_checkpoint
from posedy.training.checkpoint import LAST
from tools.lab.synthetic import generate_dataset

Experiment = Callable[..., Config]

# Trains, records the loss of each step, evaluates again and writes results.json.
TRAIN_AND_EVALUATE = """
import json, sys
from pathlib import Path
import torch
from posedy.config import load_config
from posedy.evaluation.evaluator import evaluate_model
from posedy.prediction import TorchModel
from posedy.training.trainer import Trainer

torch.set_num_threads(1)
config, run = load_config(sys.argv[1]), Path(sys.argv[2])
losses = []

class RecordingTrainer(Trainer):
    def _train_step(self, batch, num_samples, lr):
        super()._train_step(batch, num_samples, lr)
        losses.append(float(self._pending_loss[0]))

trainer = RecordingTrainer(config, run, progress=False)
trainer.fit()
net = trainer.evaluated_net.eval()
with trainer.training_step.without_autocast():
    result = evaluate_model(
        TorchModel(net), trainer.task.data.val, None, config.eval, accelerator=trainer.context.accelerator
    )
if trainer.context.is_main:
    (run / "losses.json").write_text(json.dumps(losses))
    (run / "results.json").write_text(json.dumps(result.results))
    (run / "world_size.json").write_text(json.dumps(trainer.context.world_size))
"""
TRAIN = "import sys; from posedy.cli.main import main; sys.exit(main(['train', *sys.argv[1:]]))"


def launch(script: Path, *arguments: str | Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Runs a script in several CPU processes with torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*command, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
        check=False,
    )


@pytest.fixture
def large_set(tmp_path: Path) -> Path:
    """A synthetic dataset with a validation set of 101 images."""
    generate_dataset(tmp_path / "set", 12, 101, seed=7, processes=1)
    return tmp_path / "set"


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_two_processes_train_and_evaluate_like_one(
    experiment: Experiment, large_set: Path, tmp_path: Path, loss: str
) -> None:
    script, path = tmp_path / "script.py", tmp_path / "config.yaml"
    script.write_text(TRAIN_AND_EVALUATE)
    config = experiment(
        f"data.root={large_set}",
        "train.epochs=5",
        "train.freeze_batch_norm=true",
        f"train.loss={loss}",
        f"model.output={'softmax' if loss == 'cross_entropy' else 'linear'}",
        "train.ema_decay=0.9",
        "train.clip_gradients=1",
        # Adam makes full steps of gradients that are rounding errors, which then grow: a small rate limits them
        f"train.lr={0.0002 if loss == 'cross_entropy' else 0.001}",
    )
    path.write_text(config.to_yaml())
    runs = {1: tmp_path / "one", 2: tmp_path / "two"}
    for processes, run in runs.items():
        process = launch(script, path, run, processes=processes)
        assert process.returncode == 0, process.stderr[-3000:]
        assert json.loads((run / "world_size.json").read_text()) == processes
    one, two = (json.loads((run / "losses.json").read_text()) for run in runs.values())
    assert len(one) == len(two) >= 20
    assert read_coco(large_set / "annotations/person_keypoints_train2017.json").annotation_ids.size % 2 == 1
    np.testing.assert_allclose(two, one, rtol=1e-4)
    one, two = (json.loads((run / "results.json").read_text()) for run in runs.values())
    assert len({result["image_id"] for result in one}) > 90
    assert [result["image_id"] for result in one] == [result["image_id"] for result in two]
    rows = [read_csv(run / "metrics.csv") for run in runs.values()]
    assert [row["AP"] for row in rows[0]] == [row["AP"] for row in rows[1]]


# Trains, and writes the sum of the running means before and at the evaluation.
EVALUATE_STATISTICS = """
import json, sys
from pathlib import Path
import torch
from posedy.config import load_config
from posedy.evaluation.coco_eval import METRIC_NAMES
from posedy.training.task import Evaluation
from posedy.training.trainer import Trainer

torch.set_num_threads(1)
run = Path(sys.argv[2])
trainer = Trainer(load_config(sys.argv[1]), run, progress=False)
train_epoch, sums = trainer._train_epoch, []

def record_sum():
    means = (buffer for name, buffer in trainer.net.named_buffers() if name.endswith("running_mean"))
    sums.append(float(sum(mean.double().sum() for mean in means)))

def train(stop_signal):
    train_epoch(stop_signal)
    record_sum()

def evaluate(net, workers, progress):
    assert net is trainer.net
    record_sum()
    return Evaluation(dict.fromkeys(METRIC_NAMES, 0.5), "stub")

trainer._train_epoch, trainer.task.evaluate = train, evaluate
trainer.fit()
(run / f"{trainer.context.rank}.json").write_text(json.dumps(sums))
"""


@pytest.mark.slow
def test_all_processes_evaluate_with_the_running_statistics_of_the_first(
    experiment: Experiment, tmp_path: Path
) -> None:
    script, path, run = tmp_path / "script.py", tmp_path / "config.yaml", tmp_path / "run"
    script.write_text(EVALUATE_STATISTICS)
    path.write_text(experiment("train.epochs=1").to_yaml())
    process = launch(script, path, run)
    assert process.returncode == 0, process.stderr[-3000:]
    first, second = (json.loads((run / f"{rank}.json").read_text()) for rank in range(2))
    assert first[0] != second[0]
    assert first[1] == second[1] == first[0]


EVALUATE = """
import json, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from posedy.config import EvalConfig, SkeletonConfig
from posedy.data.coco import read_coco
from posedy.evaluation.evaluator import evaluate_model
from posedy.models.factory import create_model
from posedy.prediction import TorchModel

torch.set_num_threads(1)
root, out = Path(sys.argv[1]), Path(sys.argv[2])
# sigmas so large that even an untrained network has matches
overrides = SkeletonConfig(sigmas=0.5)
persons = read_coco(root / "annotations/person_keypoints_val2017.json", root / "val2017", overrides)
torch.manual_seed(0)
net = create_model("mobilenetv2_035-bneck", input_size=(32, 64)).eval()
with torch.no_grad():
    net.head.heatmap.weight.mul_(1000)
result = evaluate_model(
    TorchModel(net), persons, None, EvalConfig(batch_size=7), accelerator=Accelerator(cpu=True)
)
if Accelerator(cpu=True).is_main_process:
    out.write_text(json.dumps([result.metrics, result.results]))
"""


@pytest.mark.slow
def test_distributed_evaluation_of_101_images_equals_one_process(large_set: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(EVALUATE)
    outputs = []
    for processes in (1, 2, 3):
        process = launch(script, large_set, tmp_path / f"{processes}.json", processes=processes)
        assert process.returncode == 0, process.stderr[-3000:]
        outputs.append((tmp_path / f"{processes}.json").read_text())
    metrics, results = json.loads(outputs[0])
    assert metrics["AR"] > 0
    assert len(results) > 101
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.slow
def test_failing_process_ends_all_with_its_message(experiment: Experiment, tmp_path: Path) -> None:
    """An image file disappears from the batches of one process during training."""
    script, path, run = tmp_path / "script.py", tmp_path / "config.yaml", tmp_path / "run"
    config = experiment("train.epochs=50")
    path.write_text(config.to_yaml())
    break_dataset = """
import os
from posedy.data.datasets import TopDownTrainDataset
from posedy.files import read_bytes
original = TopDownTrainDataset.__getitems__
def failing(self, indices):
    if os.environ["RANK"] == "1" and indices[0].epoch == 2:
        read_bytes("absent/7.jpg")
    return original(self, indices)
TopDownTrainDataset.__getitems__ = failing
"""
    script.write_text(break_dataset + TRAIN)
    process = launch(script, path, "--out", run)
    assert process.returncode != 0
    assert re.search(r"^posedy train \(process 1\): no file at .*7\.jpg", process.stderr, re.MULTILINE)
    assert "Traceback" not in process.stderr.partition("torch/distributed/elastic")[0]
    assert read_checkpoint(run / LAST)["epoch"] == 2


@pytest.mark.slow
def test_invalid_input_is_reported_once_and_ends_all(experiment: Experiment, tmp_path: Path) -> None:
    script, path = tmp_path / "script.py", tmp_path / "config.yaml"
    script.write_text(TRAIN)
    path.write_text(experiment().to_yaml())
    process = launch(script, path, "train.batch_size=7", "--out", tmp_path / "run")
    assert process.returncode != 0
    assert process.stderr.count("train.batch_size=7 is not divisible by the number of processes") == 1
    process = launch(script, path, "data.root=/nowhere", "--out", tmp_path / "run")
    assert process.returncode != 0
    assert process.stderr.count("no file at /nowhere/annotations/person_keypoints_train2017.json") == 1


FAIL_TOGETHER = """
import os, time
import torch
from posedy.config import TrainConfig
from posedy.training.distributed import DistributedContext

context = DistributedContext(TrainConfig())
errors = {
    "memory": torch.OutOfMemoryError("CUDA out of memory"), "key": KeyError("color"), "file": FileNotFoundError("no x")
}

def report(name, raised):
    print(f"{name} in {context.rank}: {type(raised).__name__}: {raised}", flush=True)

for name, error in errors.items():
    for rank in range(2):
        try:
            with context.fail_together():
                if context.rank == rank:
                    raise error
        except BaseException as raised:
            report(f"{name} of {rank}", raised)
if context.rank == 1:
    time.sleep(2)
    os._exit(0)
for block in (context.detect_lost_workers, context.fail_together):
    try:
        with block():
            context.sum(torch.ones(1))
    except BaseException as raised:
        report(block.__name__, raised)
"""


@pytest.mark.slow
def test_error_or_loss_of_one_process_is_reported_in_all(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FAIL_TOGETHER)
    process = launch(tmp_path / "script.py")
    for name, kind, message in (
        ("memory", "OutOfMemoryError", "CUDA out of memory"),
        ("key", "KeyError", "'color'"),
        ("file", "FileNotFoundError", "no x"),
    ):
        expected = [f"{name} of 0 in 0: {kind}: {message}", f"{name} of 0 in 1: SystemExit: 1"]
        if name == "file":
            expected += ["file of 1 in 0: ValueError: process 1: no x", "file of 1 in 1: SystemExit: 1"]
        else:
            expected += [
                f"{name} of 1 in 0: WorkerLostError: process 1: {kind}: {message}",
                f"{name} of 1 in 1: {kind}: {message}",
            ]
        for line in expected:
            assert line in process.stdout, process.stdout + process.stderr
    assert "detect_lost_workers in 0: WorkerLostError" in process.stdout
    assert "fail_together in 0: WorkerLostError" in process.stdout


@pytest.mark.slow
def test_two_processes_resume_exactly(experiment: Experiment, tmp_path: Path) -> None:
    script, path = tmp_path / "script.py", tmp_path / "config.yaml"
    script.write_text(TRAIN)
    path.write_text(experiment("train.epochs=4", "eval.every=2").to_yaml())
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for run, extra in ((whole, ()), (halves, ("--stop-after-epochs", "2")), (halves, ())):
        process = launch(script, path, "--out", run, *extra)
        assert process.returncode == 0, process.stderr[-3000:]
    one, other = (read_checkpoint(run / LAST)["network"]["tensors"] for run in (whole, halves))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [row["loss"] for row in read_csv(whole / "metrics.csv")] == [
        row["loss"] for row in read_csv(halves / "metrics.csv")
    ]
