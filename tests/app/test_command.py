import importlib.util
import os
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import posedy.app
from posedy.app.service import PoseService
from posedy.cli.app import _exit_at_signals
from posedy.cli.main import main
from posedy.examples import example_images
from posedy.inference.detectors import base as detectors
from posedy.inference.detectors import list_detectors
from posedy.models.pretrained import DEFAULT


def test_app_names_missing_requirement(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    assert main(["app", "--checkpoint", str(tmp_path / "absent.pt")]) == 1
    assert "absent.pt" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["app"]) == 1
    assert "pip install 'posedy[app]'" in capsys.readouterr().err


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[PoseService]:
    """The services of the pages that are launched, which are not served."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    services: list[PoseService] = []
    # the module would import gradio, which takes seconds
    server = SimpleNamespace(launch=lambda service, host, port, on_ready: services.append(service))
    monkeypatch.setitem(sys.modules, "posedy.app.server", server)
    return services


def test_app_lists_the_given_networks_and_detector_first(
    model: str, launched: list[PoseService], monkeypatch: pytest.MonkeyPatch
) -> None:
    created = []
    monkeypatch.setitem(detectors._DETECTORS, "torchvision", lambda weights: created.append(weights))
    options = ["--checkpoint", model, "--checkpoint", DEFAULT, "--detector", "torchvision", "--detector-weights", model]
    assert main(["app", *options]) == 0
    (service,) = launched
    assert service.models[:2] == (model, DEFAULT)
    assert len(set(service.models)) == len(service.models)
    assert service.detectors[0] == "torchvision"
    assert sorted(service.detectors) == list_detectors()
    assert created == [Path(model)]  # before the page is launched, to check the file


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors", "text.onnx", "text", "dict.pt", "weights.safetensors"])
@pytest.mark.parametrize("option", ["--checkpoint", "--detector-weights"])
def test_files_are_checked_at_the_start(
    option: str, name: str, launched: list[PoseService], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if name == "dict.pt":
        torch.save({"weights": torch.zeros(3)}, path)
    elif name == "weights.safetensors":
        save_file({"weight": torch.zeros(3)}, path)
    else:
        path.write_text("not a network")
    assert main(["app", option, str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert launched == []


def test_an_absent_device_is_named_at_the_start(
    launched: list[PoseService], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["app", "--device", "cuda:99"]) == 1
    assert "'cuda:99'" in capsys.readouterr().err
    assert launched == []


@pytest.mark.parametrize("port", ["0", "65536", "-1", "80a", "1_000", "\N{SUPERSCRIPT TWO}"])
def test_port_is_checked(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["app", f"--port={port}"])
    assert caught.value.code == 2
    assert repr(port) in capsys.readouterr().err


def test_variables_of_gradio_have_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"GRADIO_TEMP_DIR": "uploads", "GRADIO_ROOT_PATH": "/poses", "GRADIO_ANALYTICS_ENABLED": "False"}
    for name, value in {**kept, "GRADIO_SERVER_PORT": "x", "GRADIO_ALLOWED_PATHS": "/"}.items():
        monkeypatch.setenv(name, value)
    importlib.reload(posedy.app)
    assert {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")} == kept


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_closed_terminal_ends_the_program_unless_it_is_ignored(is_ignored: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)  # nohup ignores it
    try:
        with pytest.raises(SystemExit) if not is_ignored else nullcontext() as caught, _exit_at_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert caught is None or caught.value.code == 128 + signal.SIGHUP
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_app_prints_address_and_deletes_files_at_signals(model: str, tmp_path: Path, number: signal.Signals) -> None:
    pytest.importorskip("gradio")
    import gradio_client  # slow import, needed only here

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "posedy.cli.main", "app", "--checkpoint", model, "--port", str(port)]
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "example.org", "GRADIO_SERVER_PORT": "x"}
    environment = {**os.environ, **proxies, "TMPDIR": str(tmp_path)}
    environment.pop("GRADIO_TEMP_DIR", None)
    # background jobs of a shell ignore Ctrl-C, and child processes inherit that
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    page = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, before)
    assert page.stdout is not None
    try:
        address = f"http://127.0.0.1:{port}"
        assert address in page.stdout.readline()
        image = gradio_client.handle_file(example_images()[0].path)
        client = gradio_client.Client(address, verbose=False, download_files=False)
        client.predict(image=image, model=model, detector="full-image", api_name="/process_image")
        (folder,) = tmp_path.glob("posedy-*")
        assert [path.name for path in folder.rglob(example_images()[0].path.name)]
        page.send_signal(number)
        assert page.wait(timeout=60) == (0 if number == signal.SIGINT else 128 + number)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("posedy", "gradio"))] == []
    finally:
        page.kill()
