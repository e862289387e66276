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

from posedy.files import atomic_write, check_can_write, read_bytes, write_bytes_atomically, write_json_atomically


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_bytes_atomically(path, b"old")
    write_bytes_atomically(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_whoever_reads_the_old_file_reads_on_in_it(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with path.open() as reader:
        write_bytes_atomically(path, b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_temporary_file_is_beside_the_target_with_its_suffix(tmp_path):
    path = tmp_path / "model.safetensors"
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".safetensors"
        assert temporary != path
        temporary.write_text("x")
        assert not path.exists()
    assert path.read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
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


def test_kill_leaves_the_old_file(tmp_path):
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
    """Sets the umask for the time of a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_permissions_that_open_gives(tmp_path, umask, mask, expected):
    umask(mask)
    write_bytes_atomically(tmp_path / "file", b"")
    (tmp_path / "opened").open("w").close()
    assert mode(tmp_path / "file") == mode(tmp_path / "opened") == expected
    assert umask(mask) == mask


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_file_has_these_permissions_too_if_a_library_replaces_the_temporary_file(tmp_path, umask):
    with atomic_write(tmp_path / "file") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert mode(tmp_path / "file") == 0o644


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_files_of_other_threads_keep_their_permissions_during_a_write(tmp_path, umask, monkeypatch):
    def slow_umask(mask):
        before = umask(mask)
        time.sleep(0.1)  # a change of the umask would be in force while the other thread creates files
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


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_bytes_atomically(tmp_path / "folder", b"")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
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


def test_an_error_leaves_the_target_of_a_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomically(tmp_path / "link", float("nan"))
    assert (tmp_path / "target").read_text() == "old"
    (tmp_path / "endless").symlink_to("endless")
    with pytest.raises(OSError, match="endless"):
        write_bytes_atomically(tmp_path / "endless", b"")


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX's")
def test_a_pipe_or_a_device_is_rejected_and_stays(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="pipe or a device"):
            write_bytes_atomically(path, b"content")
    # no more than a question here: a failing test that writes to a device would harm the machine
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(OSError, match="choose another file"):
            check_can_write(path)
    assert pipe.is_fifo()
    assert set(tmp_path.iterdir()) == {pipe, link}


def test_json(tmp_path):
    value = {"keypoints": [1.5, 2, None], "name": "ünï ✓"}
    write_json_atomically(tmp_path / "a.json", value)
    write_json_atomically(tmp_path / "b.json", value, indent=2)
    for name in ("a.json", "b.json"):
        assert json.loads((tmp_path / name).read_text(encoding="utf-8")) == value
    assert "\n  " in (tmp_path / "b.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_json(tmp_path, number):
    path = tmp_path / "file.json"
    write_json_atomically(path, [1])
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomically(path, {"score": [number]})
    with pytest.raises(TypeError):
        write_json_atomically(path, Path())
    assert json.loads(path.read_text()) == [1]


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
    check_can_write(tmp_path / "new" / "folder" / "file.json")
    check_can_write(str(tmp_path / "file.json"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IsADirectoryError, match=r"cannot be written \(it is a folder\): choose another file"):
        check_can_write(tmp_path)
    with pytest.raises(OSError, match=r"cannot be written \(File name too long\)"):
        check_can_write(tmp_path / f"{'x' * 250}.b")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"file/b\.json cannot be written \(Not a directory\): choose another"):
        check_can_write(tmp_path / "file" / "b.json")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_known_before(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"file\.json cannot be written \(Permission denied\)"):
        check_can_write(tmp_path / "file.json")


def test_files_that_cannot_be_read_are_named_with_what_to_do(tmp_path):
    (tmp_path / "a").write_bytes(b"all")
    assert read_bytes(str(tmp_path / "a")) == b"all"
    with pytest.raises(FileNotFoundError, match=r"^no file at .*absent: check its name and folder"):
        read_bytes(tmp_path / "absent")
    with pytest.raises(IsADirectoryError, match=r"is a folder: give a file in it"):
        read_bytes(tmp_path)
    with pytest.raises(OSError, match=r"cannot be read \(Not a directory\)"):
        read_bytes(tmp_path / "a" / "b")
