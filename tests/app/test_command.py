from pathlib import Path

import pytest

from posedy.cli import main


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    assert main(["app", "--checkpoint", str(tmp_path / "absent.pt")]) == 1
    assert "no checkpoint at" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["app"]) == 1
    assert "pip install 'posedy[app]'" in capsys.readouterr().err
