"""The processes of torchrun, for `posedy test` and `posedy detect`, and the images that fail."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from posedy.evaluation import processes
from posedy.inference.detect import detect_images, entries_from_paths


def test_processes_without_torchrun_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 2, but MASTER_ADDR, .*: start the command by torchrun"):
        processes.join_processes()


def test_slow_processes_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default of 10 or 30 minutes would lose the results of all, if one takes longer than the others."""
    created: list[dict[str, Any]] = []
    monkeypatch.setattr(processes, "Accelerator", lambda **options: created.append(options))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    processes.join_processes()
    (handler,) = created[0]["kwargs_handlers"]
    assert handler.timeout >= timedelta(days=1)


def test_tiny_files_do_not_stop_the_detection(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"x")
    warnings: list[str] = []
    entries = entries_from_paths([tmp_path / "a.png", tmp_path / "b.png"])
    (found,) = detect_images(entries, "full-image", warnings.append)
    assert found.file_name == "a.png"
    assert "b.png: FAILED: image" in warnings[0]
