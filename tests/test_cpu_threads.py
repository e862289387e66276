"""OpenMP settings after `import posedy`, in subprocesses, since pytest has imported torch already."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from posedy.cpu_threads import cgroup_cpus

REPOSITORY = Path(__file__).parents[1]
NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "POSEDY_KEEP_OMP")
SHORT_SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
# replaces the CPU affinity by four CPUs, and the cgroup files by those of a folder
FAKE_MACHINE = """
import os, sys
from pathlib import Path
read_text = Path.read_text
def read_fake(path, **options):
    inside = str(path).startswith(("/proc/self/cgroup", "/sys/fs/cgroup"))
    return read_text(Path(sys.argv[1] + str(path)) if inside else path, **options)
Path.read_text = read_fake
os.sched_getaffinity = lambda process: {0, 1, 2, 3}
"""
SHOW = f"""
import json, os, sys
print(json.dumps({{name: os.environ[name] for name in {NAMES} if name in os.environ}}))
"""


def run(program: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program on the fake machine with the given OpenMP variables."""
    others = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", FAKE_MACHINE + program, str(root)]
    return subprocess.run(command, cwd=REPOSITORY, env=others | environment, capture_output=True, text=True, check=True)


def read_variables(program: str, root: Path, **environment: str) -> dict[str, str]:
    return json.loads(run(program, root, **environment).stdout.splitlines()[-1])


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def write_cgroup(root: Path, cpu_max: str) -> Path:
    """Writes the files of a cgroup of version 2."""
    return write(root, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": cpu_max})


def test_import_shortens_spinning_and_keeps_threads_without_a_limit(tmp_path: Path) -> None:
    assert read_variables("import posedy" + SHOW, tmp_path) == SHORT_SPIN
    assert read_variables("import posedy.skeleton" + SHOW, write_cgroup(tmp_path, "400000 100000")) == SHORT_SPIN
    assert read_variables("import tools.lab" + SHOW, write_cgroup(tmp_path, "max 100000")) == SHORT_SPIN


@pytest.mark.slow
def test_cgroup_limits_the_number_of_threads_which_data_loader_workers_inherit(tmp_path: Path) -> None:
    program = """
import os, posedy, torch
from torch.utils.data import DataLoader, Dataset
class Environment(Dataset):
    def __len__(self):
        return 1
    def __getitem__(self, index):
        return os.environ["GOMP_SPINCOUNT"] + " " + os.environ["OMP_NUM_THREADS"]
if __name__ == "__main__":
    print(torch.get_num_threads())
    print(next(iter(DataLoader(Environment(), batch_size=None, num_workers=1))))
"""
    threads, worker, variables = run(program + SHOW, write_cgroup(tmp_path, "150000 100000")).stdout.splitlines()
    assert (threads, worker) == ("1", "10000 1")
    assert json.loads(variables) == SHORT_SPIN | {"OMP_NUM_THREADS": "1"}


def test_import_after_torch_changes_nothing_and_logs_once(tmp_path: Path) -> None:
    write(tmp_path, {"modules/torch.py": ""})  # an empty module, since importing torch takes seconds
    program = f"""
import logging, sys
sys.path.insert(0, {str(tmp_path / "modules")!r})
logging.basicConfig(level="DEBUG")
import torch, posedy, posedy.skeleton
"""
    done = run(program + SHOW, write_cgroup(tmp_path, "100000 100000"))
    assert json.loads(done.stdout) == {}
    assert done.stderr.count("DEBUG:posedy:") == 1
    assert "torch" in done.stderr
    assert "posedy" not in run(program.replace("torch, posedy", "posedy, torch"), tmp_path).stderr


@pytest.mark.parametrize(
    "order", [pytest.param(order, marks=pytest.mark.slow) for order in ("posedy, torch", "torch, posedy")]
)
def test_posedy_keep_omp_disables_changes(order: str, tmp_path: Path) -> None:
    program = f"import logging; logging.basicConfig(level='DEBUG'); import {order}" + SHOW
    done = run(program, write_cgroup(tmp_path, "100000 100000"), POSEDY_KEEP_OMP="1")
    assert json.loads(done.stdout) == {"POSEDY_KEEP_OMP": "1"}
    assert "posedy" not in done.stderr


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "1", "OMP_NUM_THREADS": "2"}),
        ({"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "infinite", "OMP_NUM_THREADS": "5"}, {}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_existing_variables_are_kept(given: dict[str, str], added: dict[str, str], tmp_path: Path) -> None:
    assert read_variables("import posedy" + SHOW, write_cgroup(tmp_path, "200000 100000"), **given) == given | added


V1 = "9:name=systemd:/\n4:memory:/\n3:cpuset:/\n2:cpuacct,cpu:/docker/abc\n"
FOLDER, V1_FOLDER = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


@pytest.mark.parametrize(
    ("cgroup", "files", "cpus"),
    [
        ("0::/\n", {f"{FOLDER}/cpu.max": "max 100000"}, None),
        ("0::/\n", {f"{FOLDER}/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {f"{FOLDER}/cpu.max": "10000 100000"}, 1),
        ("0::/../x\n", {f"{FOLDER}/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {f"{FOLDER}/a/cpu.max": "300000 100000", f"{FOLDER}/a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b\n", {f"{FOLDER}/a/cpu.max": "300000 100000", f"{FOLDER}/a/b/cpu.max": "200000 100000"}, 2),
        ("0::/other\n", {f"{FOLDER}/a/cpu.max": "300000 100000"}, None),
        ("0::/\n", {f"{FOLDER}/cpu.max": "invalid"}, None),
        ("0::/\n", {}, None),
        ("invalid\n", {f"{FOLDER}/cpu.max": "invalid 1"}, None),
        (V1, {f"{V1_FOLDER}/cpu.cfs_quota_us": "-1", f"{V1_FOLDER}/cpu.cfs_period_us": "100000"}, None),
        (V1, {f"{V1_FOLDER}/cpu.cfs_quota_us": "150000", f"{V1_FOLDER}/cpu.cfs_period_us": "50000"}, 3),
        (
            V1,
            {
                f"{V1_FOLDER}/docker/abc/cpu.cfs_quota_us": "400000\n",
                f"{V1_FOLDER}/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (V1.replace("cpuacct,cpu", "cpuacct"), {f"{V1_FOLDER}/cpu.cfs_quota_us": "1"}, None),
    ],
)
def test_cgroup_limit_is_the_lowest_of_all_levels(
    cgroup: str, files: dict[str, str], cpus: int | None, tmp_path: Path
) -> None:
    assert cgroup_cpus(write(tmp_path, {"proc/self/cgroup": cgroup, **files})) == cpus


def test_system_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert cgroup_cpus(tmp_path) is None
