"""The build and the server of the page, without a browser."""

import dataclasses
import gzip
import inspect
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import torch
from torch import nn

from posedy.drawing import LEFT, limb_colors
from posedy.examples import example_images
from posedy.export.graph_file import DETECTOR_KEY, METADATA_KEY, read_graph
from posedy.export.onnx import export_onnx
from posedy.inference.detectors import PersonDetector
from posedy.inference.tracking import PoseTracker
from posedy.models.pose_net import PoseNet
from posedy.skeleton import COCO17
from tools.live import build as live
from tools.live.serve import make_server

from .conftest import serve

PAGE = Path(__file__).parents[2] / "tools/live"
MAX_SOURCE_BYTES = 60_000


def with_metadata(path: Path, out: Path, entries: dict[str, str]) -> Path:
    """Writes a copy of an ONNX file with other metadata."""
    import onnx  # optional

    model = onnx.load(path)
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, out)
    return out


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two layers, exported for the page, with most of a megabyte of weights."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    torch.manual_seed(0)
    backbone, head = nn.Conv2d(3, 256, 16, stride=4, padding=6), nn.Conv2d(256, 17, 1)
    options = {"num_keypoints": 17, "output": "linear"}
    net = PoseNet(backbone, head, name="two-layers", skeleton=COCO17, input_size=(32, 64), options=options).eval()
    path = tmp_path_factory.mktemp("network") / "net.onnx"
    export_onnx(net, path, with_decoding=True, flip=False)
    return path


@pytest.fixture(scope="module")
def detector(network: Path) -> Path:
    """A file with the metadata of an exported detector."""
    return with_metadata(network, network.with_name("detector.onnx"), {DETECTOR_KEY: "{}"})


@pytest.fixture(scope="module")
def config(network: Path) -> dict[str, Any]:
    """The content of config.json."""
    return json.loads(json.dumps(live.make_config(read_graph(network)[1], "9.9.9")))


def test_the_page_is_small_and_complete() -> None:
    sources = {path.name: path for path in PAGE.iterdir() if path.suffix in (".html", ".js", ".css", ".json")}
    assert set(sources) == set(live.PAGE_FILES)
    assert sum(path.stat().st_size for path in sources.values()) <= MAX_SOURCE_BYTES
    imported = {name for path in sources.values() for name in re.findall(r'(?:from|src=) ?"([^"]+)"', path.read_text())}
    assert {name.removeprefix("./") for name in imported} <= {*live.PAGE_FILES, *live.RUNTIME_FILES}


@pytest.mark.parametrize("name", live.PAGE_FILES)
def test_the_page_names_no_other_server(name: str) -> None:
    text = (PAGE / name).read_text(encoding="utf-8")
    assert not re.findall(r"(?:https?:|wss?:)?//[\w-]+\.[\w.-]+", text)
    assert not re.findall(r"https?:/", text)


@pytest.mark.slow
def test_the_page_is_built_from_a_package(
    network: Path, detector: Path, config: dict[str, Any], package: Path, tmp_path: Path
) -> None:
    out = tmp_path / "build/page"
    size = live.build(out, str(network), detector, package)
    assert size == sum(path.stat().st_size for path in out.iterdir())
    assert {path.name for path in out.iterdir()} == {
        *live.PAGE_FILES,
        *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm.bin"),
        *("pose.onnx", "detector.onnx", "config.json", "example.jpg", "LICENSE.txt", "NOTICE.txt"),
    }
    assert json.loads((out / "config.json").read_text()) == config
    assert gzip.decompress((out / config["runtime"]["wasm"]).read_bytes()) == b"ort-wasm-simd-threaded.wasm"
    assert (out / "pose.onnx").read_bytes() == network.read_bytes()
    assert (out / "detector.onnx").read_bytes() == detector.read_bytes()


def test_config_has_posedys_constants(config: dict[str, Any]) -> None:
    assert config["runtime"]["version"] == "9.9.9"
    assert config["pose"]["inputSize"] == [32, 64]
    assert config["pose"]["padding"] == 1.25
    assert config["detector"]["size"] == inspect.signature(PersonDetector).parameters["size"].default
    assert config["tracking"]["detectEvery"] == inspect.signature(PoseTracker).parameters["detect_every"].default
    assert config["skeleton"]["limbs"] == [list(limb) for limb in COCO17.limbs]
    assert config["skeleton"]["limbColors"] == [list(color) for color in limb_colors(COCO17)]
    assert config["drawing"]["left"] == list(LEFT)
    assert config["example"]["page"] in {image.page for image in example_images()}


@pytest.mark.parametrize("name", live.PAGE_FILES)
def test_the_page_uses_no_setting_that_config_lacks(name: str, config: dict[str, Any]) -> None:
    text = (PAGE / name).read_text(encoding="utf-8")
    for section, key in re.findall(r"config\.(\w+)\.(\w+)", text):
        assert key in config[section]
    known = {*config["tracking"], *config["detector"], *config["drawing"]}
    assert set(re.findall(r"settings\.(\w+)", text)) <= known


@pytest.mark.parametrize("change", [{"decodes": False}, {"flip": True}])
def test_networks_that_the_page_cannot_run_are_rejected(
    network: Path, package: Path, tmp_path: Path, change: dict[str, bool]
) -> None:
    _, info = read_graph(network)
    changed = dataclasses.replace(info, **change)  # type: ignore[arg-type]
    path = with_metadata(network, tmp_path / "own.onnx", {METADATA_KEY: changed.to_json()})
    with pytest.raises(ValueError, match=r"own\.onnx.*--decode --no-flip"):
        live.build(tmp_path / "page", str(path), runtime=package)


def test_another_file_than_the_detector_is_rejected(network: Path, package: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"net\.onnx.*nanodet_g_person"):
        live.build(tmp_path / "page", str(network), network, package)


def test_an_incomplete_package_is_named(package: Path, tmp_path: Path) -> None:
    (package / "dist" / "ort.wasm.min.mjs").unlink()
    with pytest.raises(FileNotFoundError, match=r"ort\.wasm\.min\.mjs"):
        live.build(tmp_path / "page", runtime=package)
    (package / "package.json").write_text('{"name": "other", "version": "1.0.0"}')
    with pytest.raises(ValueError, match="other"):
        live.build(tmp_path / "page", runtime=package)
    for content in ("{", "[]", '{"name": "onnxruntime-web"}'):
        (package / "package.json").write_text(content)
        with pytest.raises(ValueError, match=r"package\.json: expected JSON with the name and version"):
            live.build(tmp_path / "page", runtime=package)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none"))):
        live.build(tmp_path / "page", runtime=tmp_path / "none")


def test_a_missing_npm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"npm.*--runtime"):
        live.build(tmp_path / "page")


def write_npm(folder: Path, script: str) -> None:
    """Writes a program npm that runs a shell script."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)


def test_the_message_of_npm_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npm(tmp_path / "bin", "echo 'no network' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(OSError, match=r"(?s)no network.*--runtime"):
        live.build(tmp_path / "page")


def test_another_archive_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / live.ARCHIVE
    write_npm(tmp_path / "bin", f"echo other > '{archive}'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(OSError, match="hash"):
        live.build(tmp_path / "page")
    assert not archive.exists()


def test_missing_packages_for_the_export_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(*packages: str) -> None:
        raise ValueError(f"{packages[0]} is missing")

    monkeypatch.setattr(live, "require", reject)
    with pytest.raises(ValueError, match="onnx is missing"):
        live.build(tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


def test_a_large_network_is_rejected(
    network: Path, detector: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_MB", 1)
    with pytest.raises(ValueError, match=r"MB, expected up to 1"):
        live.build(tmp_path / "page", str(network), detector, package)


def test_a_failed_build_leaves_the_earlier_page(
    network: Path, detector: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of another network would not fit the settings of the page."""
    out = tmp_path / "page"
    live.build(out, str(network), detector, package)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    entries = {METADATA_KEY: read_graph(network)[1].to_json(), "other": "network"}
    others = with_metadata(network, tmp_path / "others.onnx", entries)
    with pytest.raises(ValueError, match="nanodet"):
        live.build(out, str(others), others, package)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.setattr(live, "MAX_MB", 1)
    with pytest.raises(ValueError, match="expected up to 1"):
        live.build(out, str(others), detector, package)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.undo()
    live.build(out, str(out / "pose.onnx"), out / "detector.onnx", package)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert not list(tmp_path.glob(".page-*"))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Address of a folder with files of all types."""
    for name in ("index.html", "live.js", "ort.mjs", "ort.wasm", "config.json"):
        (tmp_path / name).write_text("{}")
    yield from serve(make_server(tmp_path, 0))


def test_the_server_sends_the_headers_of_threads(address: str, tmp_path: Path) -> None:
    types = {
        "": "text/html",
        "live.js": "text/javascript",
        "ort.mjs": "text/javascript",
        "ort.wasm": "application/wasm",
    }
    for name, kind in types.items():
        with urlopen(f"{address}/{name}") as answer:
            assert answer.headers.get_content_type() == kind
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    outside = tmp_path.parent / f"{tmp_path.name}.txt"
    outside.write_text("no file of the page")
    for name in (f"../{outside.name}", f"%2e%2e/{outside.name}", str(outside), "%00"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}/{name}")


def test_a_used_port_and_a_missing_page_are_named(address: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=address.rpartition(":")[2]):
        make_server(tmp_path, int(address.rpartition(":")[2]))
    with pytest.raises(FileNotFoundError, match=r"tools\.live\.build"):
        make_server(tmp_path / "none", 0)
    for port in (-1, 65536):
        with pytest.raises(ValueError, match=f"port from 0 to 65535, got {port}"):
            make_server(tmp_path, port)
