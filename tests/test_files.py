import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from posedy.files import atomic_write, check_writable, read_bytes, write_bytes_atomically, write_json_atomically


def test_write_creates_folders_and_replaces_files(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_bytes_atomically(path, b"old")
    write_bytes_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_open_file_keeps_its_old_content(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with path.open() as reader:
        write_bytes_atomically(path, b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_temporary_file_has_folder_and_suffix_of_the_target(tmp_path):
    path = tmp_path / "model.safetensors"
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".safetensors"
        assert temporary != path
        temporary.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_error_keeps_the_old_file_and_no_temporary_file(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_kill_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    program = (
        "import os, signal, sys\n"
        "from posedy.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('ne')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


@pytest.fixture
def umask():
    """Sets the umask for the duration of a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(os.name != "posix", reason="file modes exist on POSIX only")
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_file_has_the_permissions_of_open(tmp_path, umask, mask, expected):
    umask(mask)
    write_bytes_atomically(tmp_path / "file", b"")
    (tmp_path / "opened").open("w").close()
    assert mode(tmp_path / "file") == mode(tmp_path / "opened") == expected
    assert umask(mask) == mask


@pytest.mark.skipif(os.name != "posix", reason="file modes exist on POSIX only")
def test_permissions_are_kept_if_a_library_replaces_the_temporary_file(tmp_path, umask):
    with atomic_write(tmp_path / "file") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert mode(tmp_path / "file") == 0o644


@pytest.mark.skipif(os.name != "posix", reason="file modes exist on POSIX only")
def test_write_does_not_change_permissions_of_files_of_other_threads(tmp_path, umask, monkeypatch):
    def slow_umask(mask):
        before = umask(mask)
        time.sleep(0.1)  # a changed umask would affect the files of the other thread
        return before

    monkeypatch.setattr(os, "umask", slow_umask)
    done, modes = threading.Event(), set()

    def create_files():
        for number in itertools.count():
            path = tmp_path / f"other-{number}"
            path.open("w").close()
            modes.add(mode(path))
            if done.wait(0.001):
                return

    thread = threading.Thread(target=create_files)
    thread.start()
    for number in range(3):
        write_bytes_atomically(tmp_path / f"file-{number}", b"")
    done.set()
    thread.join()
    assert modes == {0o644}


def test_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_bytes_atomically(tmp_path / "folder", b"")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("exists", [True, False])
def test_symbolic_link_is_kept_and_its_target_written(tmp_path, exists):
    target, link, link_of_link = tmp_path / "folder/target.json", tmp_path / "link.json", tmp_path / "other.json"
    target.parent.mkdir()
    if exists:
        target.write_text("old")
    link.symlink_to("folder/target.json")
    link_of_link.symlink_to(link)
    write_bytes_atomically(link_of_link, b"new")
    assert link.is_symlink()
    assert link_of_link.is_symlink()
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_error_keeps_the_target_of_a_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomically(tmp_path / "link", float("nan"))
    assert (tmp_path / "target").read_text() == "old"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write_bytes_atomically(tmp_path / "loop", b"")


@pytest.mark.skipif(os.name != "posix", reason="named pipes exist on POSIX only")
def test_pipe_or_device_is_rejected_and_kept(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="pipe or a device"):
            write_bytes_atomically(path, b"content")
    # only checks the device: a failing test must not write to it
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(OSError, match=str(path)):
            check_writable(path)
    assert pipe.is_fifo()
    assert set(tmp_path.iterdir()) == {pipe, link}


def test_json_can_be_read_back(tmp_path):
    value = {"keypoints": [1.5, 2, None], "name": "ünï ✓"}
    write_json_atomically(tmp_path / "a.json", value)
    write_json_atomically(tmp_path / "b.json", value, indent=2)
    for name in ("a.json", "b.json"):
        assert json.loads((tmp_path / name).read_text(encoding="utf-8")) == value
    assert "\n  " in (tmp_path / "b.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_json_raise(tmp_path, number):
    path = tmp_path / "file.json"
    write_json_atomically(path, [1])
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomically(path, {"score": [number]})
    with pytest.raises(TypeError):
        write_json_atomically(path, Path())
    assert json.loads(path.read_text()) == [1]


def test_check_writable_detects_unwritable_paths(tmp_path):
    check_writable(tmp_path / "new" / "folder" / "file.json")
    check_writable(str(tmp_path / "file.json"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        check_writable(tmp_path)
    check_writable(tmp_path / f"{'x' * 250}.b")
    with pytest.raises(OSError, match="File name too long"):
        check_writable(tmp_path / f"{'x' * 260}.b")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"file/b\.json"):
        check_writable(tmp_path / "file" / "b.json")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root has all permissions")
def test_check_writable_detects_missing_permissions(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"file\.json"):
        check_writable(tmp_path / "file.json")


def test_unreadable_file_raises_with_its_name(tmp_path):
    (tmp_path / "a").write_bytes(b"all")
    assert read_bytes(str(tmp_path / "a")) == b"all"
    with pytest.raises(FileNotFoundError, match=r"^no file at .*absent"):
        read_bytes(tmp_path / "absent")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read_bytes(tmp_path)
    with pytest.raises(OSError, match="Not a directory"):
        read_bytes(tmp_path / "a" / "b")
