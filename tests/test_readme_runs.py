"""The Python blocks of README.md and docs/ run as they are pasted; their commands run on small synthetic data.

`REPLACEMENTS` and `NOT_RUN` list the commands that run differently or not at all, with the reason.
"""

import contextlib
import importlib
import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from posedy.cli.main import main
from posedy.data.coco_results import write_results
from posedy.inference.bulk import predict_bulk
from posedy.inference.video_writer import VideoWriter
from tools.lab.baselines import ground_truth_results
from tools.lab.synthetic.video import generate_video

from .data.imports.writers import (
    NAMES,
    MadeImage,
    MadePerson,
    csv_rows,
    deeplabcut_rows,
    write_cvat,
    write_label_studio,
    write_labelme,
    write_rows,
)
from .inference.bulk.stub import StubEstimator
from .test_readme import DOCUMENTS, REPOSITORY, TEXT, TOOLS, blocks_of, lines

# parts of the Python blocks that take more than three seconds
SLOW_BLOCKS = ("posedy.train(", ".track(", "export_onnx(", "torch.export.", 'Path("out/', '"out/clip.csv"')
# parts of the Python blocks that cannot run here
SKIPPED_BLOCKS = {
    "s3://": "needs cloud storage; tests/inference/bulk/test_ray.py runs Ray on local files",
    "import mediapipe": "needs MediaPipe, which is no dependency, and its network files",
    "from rtmlib": "needs rtmlib, which is no dependency, and downloads its networks",
    "from ultralytics": "needs ultralytics, which is no dependency, and downloads its networks",
    "yolo_val.json": "needs predictions of ultralytics",
    "from mmpose": "needs MMPose, which is no dependency, and downloads its networks",
    "import fiftyone": "needs FiftyOne, which is no dependency, and its database",
}
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# small networks and short training runs
SMALL = ["model.input_size=[32,64]", "train.epochs=1", "train.batch_size=8", "train.workers=0", "train.precision=fp32"]
SMALL_CLASSIFIER = ["model.input_size=32", "train.epochs=1", "train.batch_size=4", "train.workers=0"]
NOT_RUN = {
    "make ": "the repository's own checks take longer",
    "pip install": "the installation precedes these tests",
    "python -m venv": "the installation precedes these tests",
    ". .venv": "the installation precedes these tests",
    "apt-get install": "needs root",
    "POSEDY_SCREENSHOTS=": "tests/app/test_browser.py needs a browser",
    "posedy --version": "exits; tests/cli/test_main.py tests it",
    "torchrun --nnodes": "needs two machines",
    "HOST=": "needs SLURM",
    "srun ": "needs SLURM",
    "posedy app": "runs until it is stopped; tests/app/ tests it",
    "NETWORK=": "needs npm; tests/live/ builds the page",
    "pytest ": "the repository's own tests",
    "python -m tools.lab.sweep": "takes hours; tests/lab/test_sweep.py runs a small sweep",
    "python -m tools.lab.benchmarks files": "needs exported files; tests/lab/benchmarks/test_files.py runs it",
    "python -m tools.lab.movenet": "needs MoveNet's files from npm",
    "python -m tools.lab.attention runs/light_dynamic": "needs a trained network; tests/lab/attention/ tests the tool",
    "python -m tools.lab.attention runs/attention": "needs a trained network; tests/lab/attention/ tests the tool",
    "python -m tools.lab.attention runs/table11": "needs a trained network; tests/lab/attention/ tests the tool",
    "python -m tools.lab.attention runs/actions": "needs a trained network; tests/lab/attention/ tests the tool",
    "python -m tools.lab.compare_results data/claim": "needs trained networks; tests/lab/ runs it",
    "python -m tools.lab.compare_classifiers data/actions": "needs trained networks; tests/lab/ runs it",
    "python -m tools.lab.class_folders DATA": "needs Stanford 40 Actions; tests/lab/test_class_folders.py runs it",
    "python -m tools.lab.curves ": "needs training runs; tests/lab/test_curves.py runs it",
    "posedy test runs/table11": "needs a trained network; the command is run for other networks",
    "posedy test runs/from_classifier": "needs a trained network; the command is run for other networks",
    "posedy train configs/synthetic/claim.yaml": "needs 13,000 generated images; tests/config/ reads the configuration",
    "posedy predict rtsp:": "needs a camera; tests/inference/video/test_streams.py opens streams",
}
REPLACEMENTS = {
    "torchrun --standalone --nproc-per-node 8 tools/": "python tools/",  # needs 8 GPUs
    "data.root=/data/coco": "data.root=data/coco",
    "/data/coco/": "data/coco/",
    "data.root=/data/imagenet": "data.root=data/imagenet",
    "/data/imagenet": "data/imagenet",
    "weights='DEFAULT'": "weights=None",
    # minutes
    "--timed-frames 100": "",
    "tools.lab.benchmarks tracking": "tools.lab.benchmarks tracking --frames 40 --seed 0",
    "tools.lab.benchmarks networks": "tools.lab.benchmarks networks --rounds 1 --models mobilenetv2_100-fpn",
    "--mediapipe-python mp/bin/python --plot docs/images/peers.png": "--plot peers.png",
    "benchmarks peers": "benchmarks peers --rounds 1 --threads 1 --runtimes openvino --networks balanced RTMPose-t",
    " --before CHECKOUT": "",
    "benchmarks end-to-end": "benchmarks end-to-end --frames 4 --rounds 1 --people 1",
    "--from 62.5 --to 70": "--from 0.02",
    "tools.lab.benchmarks smoothing": "tools.lab.benchmarks smoothing --frames 40",
    "benchmarks latency --runtimes openvino openvino_float16 openvino_int8 onnxruntime fused": (
        "benchmarks latency --runtimes fused --models dy_mobilenetv2_035 --rounds 1"
    ),
    "benchmarks aggregation": "benchmarks aggregation --pairs 1 --rounds 1 --threads 1",
    "benchmarks estimator --rounds 3": "benchmarks estimator --rounds 1 --persons 1 --busy 1",
    "--checkpoint runs/five/best.pt": "--checkpoint new/runs/five/best.pt",  # where the test of `posedy train` writes
    "export runs/five/best.pt": "export new/runs/five/best.pt",
    "--int8 --calibrate": "--int8 --allow-drop --calibrate",  # synthetic persons
    "benchmarks layers": "benchmarks layers --batch 1 --rounds 1",
    "python -m tools.lab.synthetic data/": "python -m tools.lab.synthetic new/",
    "--train 2000 --val 128": "--train 8 --val 8",
    "--train 13000 --val 1100": "--train 8 --val 8",
    "--train 1 --val 550": "--train 1 --val 8",
    "torchrun --standalone --nproc-per-node 2 -m posedy predict": "posedy predict",  # needs processes of its own
    "bulk throughput IMAGES --count 256 --rounds 2": "bulk throughput images --count 2 --rounds 1",
    "bulk memory IMAGES --count 200 2000": "bulk memory images --count 1 2",
    "bulk kills IMAGES --count 2000": "bulk kills images --count 2 --kills 1",
}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored_registries: None) -> Iterator[Path]:
    """The working directory: the repository by links, so that outputs go to a temporary folder; no downloads."""
    for path in REPOSITORY.iterdir():
        if not path.name.startswith(".") and path.name != "runs":
            (tmp_path / path.name).symlink_to(path)

    def reject(url: str, *_: object, **__: object) -> None:
        raise AssertionError(f"a block downloads {url}")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", reject)
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield tmp_path
    AcceleratorState._reset_state(reset_partial_state=True)


def marks_of(block: str, name: str) -> list[pytest.MarkDecorator]:
    """The marks of a Python block: slow, or skipped with the reason.

    Those of the README and the tutorials, which new users run, are not slow unless they take more than three seconds.
    """
    skipped = [pytest.mark.skip(reason=reason) for text, reason in SKIPPED_BLOCKS.items() if text in block]
    is_slow = not name.startswith(("README", "docs/tutorials/")) or any(text in block for text in SLOW_BLOCKS)
    return [*skipped, *([pytest.mark.slow] if is_slow else [])]


def write_parts(folder: Path) -> None:
    """Writes the files that blocks on bulk prediction read: poses/ in Parquet, results/ in COCO's format."""
    images = str(REPOSITORY / "posedy/examples/*.jpg")
    for name, format in {"poses": "parquet", "results": "coco"}.items():
        predict_bulk([images], folder / name, StubEstimator(), model="stub", settings={}, format=format)


def write_predictions() -> None:
    """Writes the files that blocks on reading results read: out/keypoints.json, out/video.jsonl and out/video.csv."""
    image = cv2.imread(str(REPOSITORY / "data/coco_mini/val2017/000000480936.jpg"))
    video = VideoWriter(Path("video.mp4"), 30.0)
    for number in range(6):
        video.write(np.ascontiguousarray(image[:, 4 * number : 4 * number + 400]), number / 30)
    video.close()
    assert main(["predict", "--examples"]) == 0
    assert main(["predict", "video.mp4", "--tracks", "csv"]) == 0


def run_block(page: str, index: int) -> None:
    """Runs a Python block of a page, whose files later blocks and commands read."""
    exec(compile(blocks_of(REPOSITORY / page, "python")[index], page, "exec"), {"__name__": "__main__"})


def python_blocks() -> dict[str, str]:
    """The Python blocks of all documents, each once, with their names."""
    names: dict[str, str] = {}
    for path in DOCUMENTS:
        for number, block in enumerate(blocks_of(path, "python"), start=1):
            names.setdefault(block, f"{path.relative_to(REPOSITORY).as_posix()}-{number}")
    return names


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=name, marks=marks_of(block, name)) for block, name in python_blocks().items()],
)
def test_python_blocks_run_as_pasted(block: str, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "/part-*" in block or "part-*." in block:
        write_parts(checkout)
        capsys.readouterr()
    if 'Path("out/' in block or '"out/video.jsonl"' in block:
        write_predictions()
        capsys.readouterr()
    if '"out/clip.csv"' in block:
        run_block("docs/tutorials/video_analysis.md", 0)
        assert main(["predict", "clip.mp4", "--tracks", "csv"]) == 0
        capsys.readouterr()
    if '"detector.onnx"' in block:
        assert main(["export", "nanodet_g_person", "--out", "detector.onnx"]) == 0
        capsys.readouterr()
    exec(compile(block, "block", "exec"), {"__name__": "__main__"})
    shown = re.findall(rf"^```python\n{re.escape(block)}```\n\n```text\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    printed = capsys.readouterr().out
    for output in shown:
        # NumPy pads numbers of different lengths with spaces
        assert NUMBER.sub("", printed).split() == NUMBER.sub("", output).split()
        numbers = [[float(number) for number in NUMBER.findall(text)] for text in (printed, output)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)  # last digits depend on the CPU


def test_readme_shows_an_output() -> None:
    assert re.search(r"^```\n\n```text\n\w", DOCUMENTS[0].read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def workshop(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files that the commands name."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("configs", "tools", "posedy"):
        (folder / name).symlink_to(REPOSITORY / name)
    for name in ("coco", "synthetic"):
        shutil.copytree(synthetic, folder / "data" / name)
    (folder / "data/coco_mini").symlink_to(REPOSITORY / "data/coco_mini")
    annotations, images = synthetic / "annotations", synthetic / "val2017"
    ground_truth = annotations / "person_keypoints_val2017.json"
    (folder / "docs/images").mkdir(parents=True)
    (folder / "my").mkdir()
    for name in ("my/train.json", "my/val.json", ground_truth.name):
        shutil.copy(ground_truth, folder / name)
    for name in ("my/images", "images", "more", "val2017"):
        shutil.copytree(images, folder / name)
    shutil.copy(next(images.glob("*.jpg")), folder / "image.jpg")
    shutil.copy(annotations / "person_detections_val2017.json", folder / "boxes.json")
    for name in ("results.json", "a.json", "b.json"):
        write_results(folder / name, ground_truth_results(ground_truth))
    _write_exports(folder / "my")
    for split in ("train", "val"):
        yolo = ["--to", "yolo", "--images", str(images), "--split", split, "--out", str(folder / "my/yolo")]
        assert main(["convert", str(ground_truth), *yolo]) == 0
    (configuration,) = blocks_of(REPOSITORY / "docs/how_to/own_keypoints.md", "yaml")
    for name, keypoint in (("wing_a", "left_wrist"), ("wing_b", "right_wrist"), ("head", "nose")):
        configuration = configuration.replace(name, keypoint)  # keypoints of the synthetic people
    (folder / "my.yaml").write_text(configuration)
    video = VideoWriter(folder / "video.mp4", 30.0)
    for number, frame in enumerate(generate_video(0, 4, 2, (160, 96))):
        video.write(frame.image, number / 30)
    video.close()
    for name in ("recordings/a.mp4", "phone/b.MOV", "match.mkv"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "video.mp4", folder / name)
    with contextlib.chdir(folder):
        run_block("docs/tutorials/video_analysis.md", 0)
        run_block("docs/tutorials/fine_tuning.md", 0)
    torch.manual_seed(0)
    run, config = folder / "runs/x", REPOSITORY / "configs/coco/dy_mobilenetv2_050-dy_bneck.yaml"
    data = f"data.root={folder / 'data/coco'}"
    assert main(["train", str(config), data, *SMALL, "--out", str(run)]) == 0
    for name in ("dy050", "fine-tuned", "mine"):
        shutil.copytree(run, folder / "runs" / name)
    _train_small_classifier(folder)
    options = ["--checkpoint", str(run / "best.pt"), "--boxes", "gt", "--out", str(folder / "runs/dy050/test/gt")]
    assert main(["test", str(run / "config.yaml"), *options]) == 0
    return folder


def _write_exports(folder: Path) -> None:
    """Writes exports of annotation tools about an image of the folder."""
    path = sorted((folder / "images").glob("*.jpg"))[0]
    height, width = cv2.imread(str(path)).shape[:2]
    keypoints = {name: (width / 4 + 5.0 * index, height / 2, 2) for index, name in enumerate(NAMES)}
    images = [MadeImage(path.name, (width, height), [MadePerson(keypoints)])]
    write_cvat(folder / "annotations.xml", images)
    write_label_studio(folder / "label_studio.json", images)
    write_labelme(folder / "labelme", images)
    video = folder / "deeplabcut/labeled-data/video"
    write_rows(video / "CollectedData_me.csv", deeplabcut_rows(images))
    shutil.copy(path, video)
    write_rows(folder / "table.csv", csv_rows(images))


def _train_small_classifier(folder: Path) -> None:
    rng, root = np.random.default_rng(0), folder / "data/imagenet"
    for name in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (root / name).mkdir(parents=True)
        for index in range(4):
            cv2.imwrite(str(root / name / f"{index}.jpg"), rng.integers(0, 256, (40, 40, 3), np.uint8))
    name = "dy_mobilenetv2_050"
    config = REPOSITORY / f"configs/imagenet/{name}.yaml"
    arguments = [str(config), f"data.root={root}", *SMALL_CLASSIFIER, "--out", str(folder / "runs" / name)]
    assert main(["train-classifier", *arguments]) == 0


@pytest.fixture
def in_workshop(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The workshop as working directory, with a video as camera 0."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(sys, "path", [str(workshop), *sys.path])
    open_capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: open_capture("video.mp4" if source == 0 else source))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
@pytest.mark.usefixtures("in_workshop")
@pytest.mark.parametrize("line", [line for line in lines() if not line.startswith(tuple(NOT_RUN))])
def test_commands_succeed(line: str, workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, replacement in REPLACEMENTS.items():
        line = line.replace(text, replacement)
    argv = [argument for pattern in shlex.split(line) for argument in _expand(pattern, workshop)]
    if argv[:2] == ["python", "-c"]:
        exec(argv[2], {})
        return
    if argv[:2] == ["python", "-m"]:
        is_package = importlib.import_module(argv[2]).__spec__.submodule_search_locations is not None
        importlib.import_module(f"{argv[2]}.__main__" if is_package else argv[2]).main(argv[3:])
        return
    argv = [TOOLS[argv[1]], *argv[2:]] if argv[0] == "python" else argv[1:]
    if argv[0] in ("train", "train-classifier"):  # a new and short run
        shutil.rmtree(workshop / "new/runs", ignore_errors=True)
        small = SMALL if argv[0] == "train" else SMALL_CLASSIFIER
        out = argv.index("--out") + 1 if "--out" in argv else 0
        argv = [*argv[:out], f"new/{argv[out]}", *argv[out + 1 :], *small] if out else [*argv, *small]
    if argv[0] == "test" and "balanced" not in argv:
        argv.append("model.input_size=[32,64]")
    assert main(argv) == 0, capsys.readouterr().err


def _expand(pattern: str, folder: Path) -> list[str]:
    """Expands a glob pattern as a shell does."""
    if not pattern.endswith("*.jpg"):
        return [pattern]
    return [str(path.relative_to(folder)) for path in sorted(folder.glob(pattern))]
