"""Build of the page: posedy's networks as ONNX files, ONNX Runtime Web, and the files of this folder.

python -m tools.live.build                            # into build/live/; needs npm and posedy's extra export
python -m tools.live.build --network pose.onnx        # another network: a preset, a checkpoint or an exported file

The folder is complete: any web server can serve it, and the page requests nothing from other servers. Browsers run the
networks on several threads only with the headers of `tools.live.serve`.
"""

import argparse
import base64
import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posedy import drawing
from posedy.examples import LICENSE, ExampleImage, example_images
from posedy.export.graph_file import DETECTOR_KEY, GraphInfo, read_graph, read_metadata
from posedy.export.onnx import export_onnx
from posedy.export.onnx_detector import export_detector_onnx
from posedy.export.runtimes import require
from posedy.files import write_json_atomically
from posedy.geometry import padded_region
from posedy.inference.detectors import nanodet
from posedy.inference.tracking_settings import DEFAULT_SETTINGS
from posedy.models.nanodet import INPUT_MULTIPLE, MAX_SIDE, PERSON_WEIGHTS
from posedy.models.pretrained import load_checkpoint
from posedy.skeleton import Skeleton
from tools.lab.entry import run_and_exit
from tools.live.serve import OUT

REPOSITORY = Path(__file__).parents[2]
PAGE_FILES = ("index.html", "live.js", "estimator.js", "tracker.js", "geometry.js", "drawing.js")
"""The files of the page in this folder."""
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The files of ONNX Runtime Web that run networks on the CPU, in the folder dist/ of its package."""
MAX_MB = 30
"""Largest size of the built folder."""
DEFAULT_NETWORK = "light"

_PACKAGE, _VERSION = "onnxruntime-web", "1.30.0"
ARCHIVE = f"{_PACKAGE}-{_VERSION}.tgz"
"""The file of the package, which npm downloads to the folder of `OUT`."""
# of the archive, as in the registry
_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The WebAssembly has a quarter of its size with gzip. Some servers would unpack a file NAME.gz on the way.
_WASM = RUNTIME_FILES[-1]
_COMPRESSED_WASM = f"{_WASM}.bin"
_EXAMPLE = "soccer"
_DETECT_EVERY = 10  # the default of `PoseTracker`
_DETECTOR_SIZE = 416  # the default of `PersonDetector`


def build(
    out: Path,
    network: str = DEFAULT_NETWORK,
    detector: Path | None = None,
    runtime: Path | None = None,
) -> int:
    """Builds the page.

    Args:
        out: the folder; files in it are replaced.
        network: a preset, the name of a pretrained network or a checkpoint, which is exported in float32, since
            float16 moves a few keypoints of low confidence; or a file of `posedy export --decode --no-flip`.
        detector: a file of `posedy export nanodet_g_person`; None exports it with float16 weights, which it
            has in the package, too.
        runtime: an unpacked package onnxruntime-web; None downloads the archive with npm and keeps it next to `out`.

    Returns:
        The size of the folder in bytes.

    Raises:
        OSError: if a file cannot be read or written, or npm is missing or fails.
        ValueError: if a package for the export is missing, a file is not as expected, or the folder is too large.
    """
    require("onnx", "onnxscript", "onnxruntime")
    out.mkdir(parents=True, exist_ok=True)
    # an error leaves an earlier page as it is, and not the graph of one network with the settings of another
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        folder = Path(temporary)
        version = _copy_runtime(runtime, folder, out.parent / ARCHIVE)
        info = _write_network(network, folder / "pose.onnx")
        _write_detector(detector, folder / "detector.onnx")
        for name in PAGE_FILES:
            shutil.copyfile(Path(__file__).parent / name, folder / name)
        for name in ("LICENSE", "NOTICE"):
            shutil.copyfile(REPOSITORY / name, folder / f"{name}.txt")
        shutil.copyfile(_example().path, folder / "example.jpg")
        write_json_atomically(folder / "config.json", make_config(info, version))
        files = list(folder.iterdir())
        size = sum(path.stat().st_size for path in files)
        if size > MAX_MB * 1e6:
            raise ValueError(
                f"{out} would have {size / 1e6:.1f} MB, expected up to {MAX_MB}: give a smaller network, such as a "
                "file of posedy export NAME --out x.onnx --decode --no-flip --half"
            )
        for path in files:
            path.replace(out / path.name)
    return size


def make_config(info: GraphInfo, runtime_version: str) -> dict[str, Any]:
    """Returns what config.json tells the page: the constants of posedy that it needs, and its files.

    Args:
        info: the metadata of the pose network.
        runtime_version: the version of ONNX Runtime Web.
    """
    assert info.skeleton is not None  # checked by `_check_network`
    example = _example()
    _, padded = padded_region([0, 0, 1, 1], 1.0)
    return {
        "version": importlib.metadata.version("posedy"),
        "runtime": {"name": _PACKAGE, "version": runtime_version, "wasm": _COMPRESSED_WASM},
        "pose": {
            "file": "pose.onnx",
            "name": info.record["name"],
            "inputSize": info.input_size,
            "padding": float(padded[0]),
        },
        "detector": {"file": "detector.onnx", **describe_detector()},
        "tracking": describe_tracking(),
        "skeleton": _describe_skeleton(info.skeleton),
        "drawing": {
            "threshold": drawing.DRAW_THRESHOLD,
            "faintOpacity": drawing.FAINT_OPACITY,
            "personPixelsPerLinePixel": drawing.PERSON_PIXELS_PER_LINE_PIXEL,
            "maxLineWidth": drawing.MAX_LINE_WIDTH,
            "outline": drawing.OUTLINE,
            "left": drawing.LEFT,
            "right": drawing.RIGHT,
        },
        "example": {"file": "example.jpg", "page": example.page, "license": LICENSE},
    }


def describe_detector() -> dict[str, Any]:
    """Returns the settings of `PersonDetector` for the page."""
    return {
        "name": PERSON_WEIGHTS.stem,
        "size": _DETECTOR_SIZE,
        "multiple": INPUT_MULTIPLE,
        "maxSide": MAX_SIDE,
        "maxExcess": nanodet.MAX_EXCESS,
        "largestBilinearFactor": nanodet.LARGEST_BILINEAR_FACTOR,
        "thresholds": _in_camel_case(nanodet.THRESHOLDS._asdict()),
        "nmsIou": nanodet.NMS_IOU,
        "maxCandidates": nanodet.MAX_CANDIDATES,
        "maxBoxes": nanodet.MAX_BOXES,
    }


def describe_tracking() -> dict[str, Any]:
    """Returns the settings of `PoseTracker` for the page."""
    settings = _in_camel_case(dataclasses.asdict(DEFAULT_SETTINGS))
    return {**settings, "detectEvery": _DETECT_EVERY, "threshold": drawing.DRAW_THRESHOLD}


def _describe_skeleton(skeleton: Skeleton) -> dict[str, Any]:
    return {
        "keypoints": skeleton.keypoints,
        "sigmas": skeleton.sigmas,
        "limbs": skeleton.limbs,
        "keypointColors": drawing.keypoint_colors(skeleton),
        "limbColors": drawing.limb_colors(skeleton),
    }


def _example() -> ExampleImage:
    return next(image for image in example_images() if image.path.stem == _EXAMPLE)


def _in_camel_case(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a mapping with the names of JavaScript."""
    return {re.sub(r"_(.)", lambda match: match[1].upper(), name): value for name, value in values.items()}


def _write_network(network: str, path: Path) -> GraphInfo:
    """Writes the pose network, and returns its metadata."""
    if Path(network).suffix.lower() == ".onnx":
        _check_network(read_graph(network)[1], network)
        shutil.copyfile(network, path)
    else:
        print(f"exporting the network {network}, which can take some minutes", flush=True)
        export_onnx(load_checkpoint(network), path, batch=1, with_decoding=True, flip=False)
    _, info = read_graph(path)
    _check_network(info, network)
    return info


def _check_network(info: GraphInfo, network: str) -> None:
    """Raises ValueError if the page cannot run a network."""
    if not info.decodes or info.flip:
        raise ValueError(f"{network}: expected a file of posedy export NAME --out x.onnx --decode --no-flip")
    if info.skeleton is None:
        raise ValueError(f"{network}: expected a network with a skeleton, which the page draws")


def _write_detector(detector: Path | None, path: Path) -> None:
    """Writes the person detector."""
    if detector is None:
        print("exporting the person detector", flush=True)
        export_detector_onnx(path, half=True)
        return
    if DETECTOR_KEY not in read_metadata(detector)[1]:
        raise ValueError(f"{detector}: expected a file of posedy export {PERSON_WEIGHTS.stem} --out x.onnx")
    shutil.copyfile(detector, path)


def _copy_runtime(folder: Path | None, out: Path, archive: Path) -> str:
    """Copies the files of ONNX Runtime Web from a folder, or from npm's archive, and returns their version."""
    if folder is not None:
        return _copy_package(folder, out)
    if not (archive.is_file() and _is_intact(archive)):
        _download_archive(archive)
    with tempfile.TemporaryDirectory() as unpacked, tarfile.open(archive) as package:
        members = [f"package/{name}" for name in ("package.json", *(f"dist/{name}" for name in RUNTIME_FILES))]
        for member in members:
            package.extract(member, unpacked, filter="data")
        return _copy_package(Path(unpacked) / "package", out)


def _copy_package(folder: Path, out: Path) -> str:
    """Copies the files of an unpacked package, and returns its version."""
    manifest = folder / "package.json"
    if not manifest.is_file():
        raise FileNotFoundError(f"{folder}: expected an unpacked package {_PACKAGE}, it has no package.json")
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        name, version = str(content["name"]), str(content["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{manifest}: expected JSON with the name and version of a package") from error
    if name != _PACKAGE:
        raise ValueError(f"{manifest}: expected the package {_PACKAGE}, got {name!r}")
    for name in RUNTIME_FILES:
        path = folder / "dist" / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: expected the files of {_PACKAGE} {_VERSION}")
        if name == _WASM:
            (out / _COMPRESSED_WASM).write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        else:
            shutil.copyfile(path, out / name)
    return version


def _download_archive(archive: Path) -> None:
    """Downloads the package's archive with npm, and checks its hash."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"npm was not found, which downloads {_PACKAGE}: install Node.js, or unpack the package elsewhere and give "
            "its folder as --runtime"
        )
    print(f"downloading {_PACKAGE} {_VERSION} with npm, 33 MB", flush=True)
    command = [npm, "pack", f"{_PACKAGE}@{_VERSION}", "--pack-destination", str(archive.parent), "--loglevel=error"]
    packed = subprocess.run(command, capture_output=True, text=True, check=False)
    if packed.returncode:
        reason = packed.stderr.strip() or packed.returncode
        raise OSError(
            f"npm could not download {_PACKAGE} {_VERSION}: {reason}\nWithout a network, unpack the package elsewhere "
            "and give its folder as --runtime"
        )
    if not _is_intact(archive):
        archive.unlink()
        raise OSError(f"the download of {_PACKAGE} {_VERSION} is not the expected file: its hash differs")


def _is_intact(archive: Path) -> bool:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    return f"sha512-{digest}" == _INTEGRITY


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the arguments and builds the page.

    Raises:
        OSError, ValueError: see `build`.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.live.build", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of the page (default: %(default)s)")
    parser.add_argument(
        "--network",
        default=DEFAULT_NETWORK,
        help="a preset, a checkpoint, or a file of posedy export --decode --no-flip (default: %(default)s)",
    )
    parser.add_argument("--detector", type=Path, help="a file of posedy export nanodet_g_person (default: exports it)")
    parser.add_argument(
        "--runtime", type=Path, metavar="FOLDER", help=f"an unpacked package {_PACKAGE} (default: npm downloads it)"
    )
    arguments = parser.parse_args(argv)
    size = build(arguments.out, arguments.network, arguments.detector, arguments.runtime)
    print(f"built {arguments.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_and_exit(main, "tools.live.build")
