import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from posedy.cli.main import main


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    assert main(["app", "--checkpoint", str(tmp_path / "absent.pt")]) == 1
    assert "no checkpoint at" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["app"]) == 1
    assert "pip install 'posedy[app]'" in capsys.readouterr().err


@pytest.mark.slow
def test_it_says_where_the_page_is_once_it_is_there(model: str, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        command = [sys.executable, "-m", "posedy.cli.main", "app", "--checkpoint", model, "--port", str(port)]
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 1
        assert str(port) in refused.stderr
        assert "Traceback" not in refused.stderr + refused.stdout
        assert "--debug" not in refused.stderr
        assert "shows the page" not in refused.stdout
    # what a shell runs in the background ignores Ctrl-C, and so would the page
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    page = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert page.stdout is not None
    try:
        assert page.stdout.readline() == f"http://127.0.0.1:{port} shows the page; Ctrl-C ends it\n"
        assert urlopen(f"http://127.0.0.1:{port}").status == 200
        page.send_signal(signal.SIGINT)
        assert page.wait(timeout=20) in (0, 1, -signal.SIGINT)
    finally:
        page.kill()
