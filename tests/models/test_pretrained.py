from pathlib import Path

import pytest

from posedy.config import load_config
from posedy.models import pretrained as shipped
from posedy.models.dynamic_conv import temperatures
from posedy.models.pretrained import find_weights, list_pretrained, load_checkpoint, save_weights
from posedy.models.registry import create_model
from posedy.training.optim import temperature


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_weights(create_model("mobilenetv2_035-bneck", input_size=(32, 64)), tmp_path / "small.safetensors")
    (tmp_path / "small.md").write_text("its model card")
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return tmp_path


def test_names_are_those_of_the_files(folder: Path) -> None:
    assert list_pretrained() == ["small"]
    assert find_weights("small") == folder / "small.safetensors"
    assert load_checkpoint("small").input_size == (32, 64)


def test_everything_else_is_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("runs/small", "small.pt", "./small", Path("a/b")):
        assert find_weights(path) == Path(path)
    monkeypatch.chdir(folder)
    Path("small").write_text("a file of that name comes first")
    assert find_weights("small") == Path("small")


def test_unknown_names_are_refused_with_those_that_there_are(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no shipped model is named 'large'; shipped are: small\. Or give the path"):
        find_weights("large")
    with pytest.raises(ValueError, match=r"'resnet18-bneck' \(resnet18-bneck is an architecture"):
        find_weights("resnet18-bneck")


@pytest.mark.parametrize("name", list_pretrained())
def test_each_shipped_network_is_small_has_a_card_and_runs(name: str) -> None:
    assert find_weights(name).stat().st_size < 20e6
    assert find_weights(name).with_suffix(".md").is_file()
    net = load_checkpoint(name)
    assert net.skeleton is not None
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())


def test_fine_tuning_keeps_the_input_and_the_temperature_of_the_shipped_network() -> None:
    config = load_config(Path(__file__).parents[2] / "configs/real/fine_tune.yaml")
    net = load_checkpoint(str(config.model.weights))
    assert net.input_size == config.model.input_size
    wanted = {temperature(config.train.temperature, epoch) for epoch in range(config.train.epochs)}
    assert temperatures(net) == wanted
