"""Mutation testing with a fixed list: inserts 40 faults into the package, one at a time, and runs the related tests.

python -m tools.lab.seeded_faults                     # in this checkout
python -m tools.lab.seeded_faults --checkout FOLDER   # in another one, such as an earlier commit

A fault replaces a text of the package: swapped axes, an off-by-one index, a dropped term, a wrong sign. The file is
found by the text, so that the list is independent of the layout. A fault is caught if a quick test fails.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from posedy.cli.options import add_json, write_json
from tools.lab.entry import run_and_exit


@dataclass(frozen=True)
class Fault:
    """A text of the package and its faulty replacement.

    Attributes:
        package: area of the package, for the report.
        text: the correct text, which occurs exactly once in the package.
        replacement: the faulty text.
        tests: test files or folders to run; missing ones are skipped.
    """

    package: str
    text: str
    replacement: str
    tests: tuple[str, ...]


_GEOMETRY = ("tests/test_geometry.py", "tests/data/test_augment.py", "tests/data/test_dataset.py")
_CODEC = ("tests/test_codec.py", "tests/codecs", "tests/test_prediction.py")
_OKS = ("tests/evaluation/test_oks.py", "tests/evaluation/test_nms.py", "tests/evaluation/test_rescoring.py")
_MODELS = ("tests/models",)
_EXPORT = ("tests/deploy", "tests/export")
_DATA = ("tests/data",)
_TRAINING = ("tests/training",)
_EVALUATION = ("tests/evaluation",)
_INFERENCE = ("tests/inference",)
_CLI = ("tests/test_cli.py", "tests/cli", "tests/test_files.py")

FAULTS = (
    Fault("geometry", "matrix[..., 0, 2] += width - 1", "matrix[..., 0, 2] += width", _GEOMETRY),
    Fault("geometry", "matrix[..., 0, 1] = -matrix[..., 1, 0]", "matrix[..., 0, 1] = matrix[..., 1, 0]", _GEOMETRY),
    Fault("geometry", "np.maximum(height, width / aspect)", "np.maximum(height, width * aspect)", _GEOMETRY),
    Fault("geometry", "-linear @ matrix[..., 2:]", "linear @ matrix[..., 2:]", _GEOMETRY),
    Fault("geometry", "boxes[..., :2] + boxes[..., 2:]], axis=-1)", "boxes[..., 2:]], axis=-1)", _GEOMETRY),
    Fault("codec", "torch.floor(keypoints / STRIDE + 0.5)", "torch.floor(keypoints / STRIDE)", _CODEC),
    Fault("codec", "0.25 * torch.sign(after - before)", "0.25 * torch.sign(before - after)", _CODEC),
    Fault("codec", "(h_xy * g_y - h_yy * g_x) / divisor", "(h_xy * g_y + h_yy * g_x) / divisor", _CODEC),
    Fault("codec", "[index % width, index // width]", "[index // width, index % width]", _CODEC),
    Fault("codec", "(width - 1) / (columns - 1)", "width / columns", _CODEC),
    Fault("oks", "(2 * sigmas) ** 2 / mean_area", "(2 * sigmas) / mean_area", _OKS),
    Fault("oks", "(areas[:, None] + areas[None]) / 2 + np", "areas[:, None] + np", _OKS),
    Fault("models", "z / self.temperature.to(dtype)", "z * self.temperature.to(dtype)", _MODELS),
    Fault("models", "hidden = max(in_channels // reduction, 1)", "hidden = max(in_channels // reduction, 2)", _MODELS),
    Fault("models", "return x + y if self.is_residual else y", "return y", _MODELS),
    Fault(
        "models",
        "self.conv2(self.conv1(x)) + self.shortcut(x)",
        "self.conv2(self.conv1(x)) - self.shortcut(x)",
        _MODELS,
    ),
    Fault("models", "deviations -= deviations.mean(dim=0)", "deviations -= deviations.mean()", _MODELS),
    Fault(
        "models",
        "torch.stack([before + 3 * identity, 3 * identity + after], dim=1)",
        "torch.stack([before + 3 * identity, 3 * identity + before], dim=1)",
        _MODELS,
    ),
    Fault("export", "shift = -scale * mean", "shift = scale * mean", _EXPORT),
    Fault("export", "bias * scale + shift", "bias + shift", _EXPORT),
    Fault("export", "per_pixel = 1 / (H * W)", "per_pixel = 1 / (H + W)", _EXPORT),
    Fault("export", "parameter.data.div_(attention.temperature)", "parameter.data.mul_(1)", _EXPORT),
    Fault("data", "keypoints[self.flip_permutation] if flip", "keypoints if flip", _DATA),
    Fault(
        "data", "flip = rng.random() < config.flip_probability", "flip = rng.random() > config.flip_probability", _DATA
    ),
    Fault("data", "labeled.sum() <= _HALF_BODY_MIN_LABELED", "labeled.sum() < _HALF_BODY_MIN_LABELED", _DATA),
    Fault("data", "np.random.default_rng((self.seed, epoch)).permutation(self.size)", "np.arange(self.size)", _DATA),
    Fault("data", "batch[self.rank :: self.world_size]", "batch[:: self.world_size]", _DATA),
    Fault("data", "(corners[:, 2:] <= 0) | (corners[:, :2] >= sizes)", "(corners[:, 2:] <= 0)", _DATA),
    Fault(
        "training",
        "(1 + self.steps) / (_EMA_WARMUP + self.steps)",
        "self.steps / (_EMA_WARMUP + self.steps)",
        _TRAINING,
    ),
    Fault("training", "config.lr * warmup * (1 + math.cos", "config.lr * warmup * (1 - math.cos", _TRAINING),
    Fault("training", "sum(epoch >= milestone for milestone", "sum(epoch > milestone for milestone", _TRAINING),
    Fault("training", "0.5 * (weights[..., None, None] * (heat", "0.5 * (1 * (heat", _TRAINING),
    Fault("training", "(weights * per_keypoint).sum()", "per_keypoint.sum()", _TRAINING),
    Fault("training", "torch.lerp(targets, soft, self.weight)", "targets", _TRAINING),
    Fault("evaluation", "rescore(poses.box_scores, poses.scores,", "rescore(1, poses.scores,", _EVALUATION),
    Fault("evaluation", "crops.sizes.prod(axis=-1)", "crops.sizes.sum(axis=-1)", _EVALUATION),
    Fault(
        "evaluation",
        "after[name] - before[name] for name in METRIC",
        "before[name] - after[name] for name in METRIC",
        _EVALUATION,
    ),
    Fault(
        "inference",
        "velocity = (keypoints - self._keypoints) / dt",
        "velocity = (keypoints - self._keypoints) * dt",
        _INFERENCE,
    ),
    Fault(
        "inference",
        "        dt = time - self._time\n        if dt <= 0:",
        "        dt = time - self._time\n        if dt < 0:",
        _INFERENCE,
    ),
    Fault("cli", "indent=indent, allow_nan=False", "indent=indent, allow_nan=True", _CLI),
)


def locate(root: Path, text: str) -> Path:
    """Returns the file of the package that contains a text once.

    Raises:
        ValueError: if the text does not occur exactly once in the package.
    """
    counts = {path: path.read_text(encoding="utf-8").count(text) for path in sorted((root / "posedy").rglob("*.py"))}
    found = [path for path, count in counts.items() if count]
    if len(found) != 1 or counts[found[0]] != 1:
        raise ValueError(f"expected one occurrence of {text!r} in {root}, got {sum(counts.values())}")
    return found[0]


def is_caught(checkout: Path, fault: Fault) -> bool:
    """Returns whether a quick test fails with the fault inserted into a copy of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "real", "__pycache__"))
        path = locate(copy, fault.text)
        path.write_text(path.read_text(encoding="utf-8").replace(fault.text, fault.replacement), encoding="utf-8")
        tests = [test for test in fault.tests if (copy / test).exists()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {"PYTHONPATH": str(copy)}
        process = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if process.returncode not in (0, 1, 2):
        raise ValueError(f"pytest exited with {process.returncode} on {tests}: {process.stdout[-500:]}")
    return process.returncode != 0


def main(argv: list[str] | None = None) -> None:
    """Inserts the faults and prints which ones are caught."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab.seeded_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[2], help="default: this checkout")
    add_json(parser)
    arguments = parser.parse_args(argv)
    rows = []
    for number, fault in enumerate(FAULTS, start=1):
        try:
            path: Path | None = locate(arguments.checkout, fault.text)
        except ValueError as error:
            path = None
            print(f"{number:3} {fault.package:11} not found: {error}", flush=True)
        caught = is_caught(arguments.checkout, fault) if path is not None else None
        if path is not None:
            result = "caught" if caught else "MISSED"
            print(f"{number:3} {fault.package:11} {result}  {fault.text} -> {fault.replacement}", flush=True)
        rows.append({"package": fault.package, "text": fault.text, "instead": fault.replacement, "caught": caught})
    print(f"{sum(row['caught'] is True for row in rows)} of {len(rows)} caught")
    write_json(arguments.json, {"faults": rows})


if __name__ == "__main__":
    run_and_exit(main, "seeded_faults")
