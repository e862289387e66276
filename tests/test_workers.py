import os

import pytest

from posedy.system import default_workers


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (8, 8), (64, 8)])
def test_one_for_each_core_that_may_be_used(monkeypatch, cores, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    assert default_workers() == workers


@pytest.mark.parametrize(("cores", "workers"), [(None, 1), (4, 4), (96, 8)])
def test_systems_that_do_not_say_which_cores_may_be_used(monkeypatch, cores, workers):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_workers() == workers
