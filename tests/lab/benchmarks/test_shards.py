"""The benchmark of shards: a consistent result, also printed."""

import json
from pathlib import Path

import pytest

from tools.lab.benchmarks.__main__ import main

pytest.importorskip("webdataset", reason="writing shards needs webdataset (extra wds)")


@pytest.mark.slow
def test_result_is_consistent(synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    command = ["shards", f"data.root={synthetic}", "model.input_size=[32, 64]", "--persons", "12", "--rounds", "2"]
    main([*command, "--json", str(path)])
    report = json.loads(path.read_bytes())
    assert (report["persons"], report["shards"], report["rounds"]) == (12, 12, 2)
    assert [row["workers"] for row in report["workers"]] == [0, 1]
    printed = capsys.readouterr().out
    for row in report["workers"]:
        speed, measured = row["samples_per_second"], row["speed_of_shards"]
        assert min(speed.values()) > 0
        assert 0 < measured["quartile_low"] <= measured["median"] <= measured["quartile_high"]
        assert f"{row['workers']} workers: packed {speed['packed']:.0f}" in printed


def test_numbers_below_1_are_rejected() -> None:
    with pytest.raises(ValueError, match="--rounds"):
        main(["shards", "--rounds", "0"])
