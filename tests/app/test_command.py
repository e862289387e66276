import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from posedy.cli.main import main
from posedy.inference.detectors import list_detectors
from posedy.models.pretrained import DEFAULT


def test_app_names_missing_requirement(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    assert main(["app", "--checkpoint", str(tmp_path / "absent.pt")]) == 1
    assert "absent.pt" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["app"]) == 1
    assert "pip install 'posedy[app]'" in capsys.readouterr().err


def test_app_lists_the_given_network_and_detector_first(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio")
    launched = []
    monkeypatch.setattr("posedy.app.page.launch", lambda service, *_: launched.append(service))
    options = ["--checkpoint", model, "--detector", "torchvision", "--detector-weights", model]
    assert main(["app", *options]) == 0
    (service,) = launched
    assert service.models[:2] == (model, DEFAULT)
    assert service.detectors[0] == "torchvision"
    assert sorted(service.detectors) == list_detectors()
    assert service.detector_weights == {"torchvision": Path(model)}


@pytest.mark.slow
def test_app_prints_address_when_page_is_available(model: str, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        command = [sys.executable, "-m", "posedy.cli.main", "app", "--checkpoint", model, "--port", str(port)]
        failed = subprocess.run(command, capture_output=True, text=True)
        assert failed.returncode == 1
        assert str(port) in failed.stderr
        assert "Traceback" not in failed.stderr + failed.stdout
        assert "--debug" not in failed.stderr
        assert "http://" not in failed.stdout
    # background jobs of a shell ignore Ctrl-C, and child processes inherit that
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    page = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert page.stdout is not None
    try:
        assert f"http://127.0.0.1:{port}" in page.stdout.readline()
        assert urlopen(f"http://127.0.0.1:{port}").status == 200
        page.send_signal(signal.SIGINT)
        assert page.wait(timeout=20) in (0, 1, -signal.SIGINT)
    finally:
        page.kill()
