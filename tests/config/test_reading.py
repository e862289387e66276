"""Reading of configurations: defaults, files, overrides and errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from posedy.config import ClassifierConfig, Config, ConfigError, load_classifier_config, load_config
from posedy.models.factory import create_model
from posedy.models.meta import meta_device

REPOSITORY = Path(__file__).parents[2]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_are_the_papers_recipe() -> None:
    config = load_config(None)
    assert config.train.epochs == 210
    assert config.train.batch_size == 128
    assert config.train.lr == 1e-3
    assert (config.train.schedule, config.train.loss, config.model.output) == ("step", "mse", "linear")
    assert (config.train.temperature.start, config.train.temperature.end) == (30, 30)
    assert config.model.input_size == (192, 256)
    assert config.augment.flip_probability == 0.5
    assert (config.augment.scale_std, config.augment.scale_range) == (0.35, (0.65, 1.35))
    assert (config.augment.rotation_std, config.augment.rotation_max) == (45, 45)
    assert (config.augment.rotation_probability, config.augment.half_body_probability) == (0.6, 0.3)
    assert (config.eval.nms, config.eval.keypoint_threshold, config.data.padding) == (0.9, 0.2, 1.25)


def test_file_changes_defaults_and_overrides_change_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "train: {epochs: 3, lr: 0.01}\n")
    config = load_config(path, ["train.lr=1e-4", "model.input_size=[96, 128]", "data.root=/data/coco", "eval.nms=null"])
    assert config.train.epochs == 3
    assert config.train.lr == 1e-4
    assert config.model.input_size == (96, 128)
    assert config.eval.nms is None
    assert config.data.train_set.annotations == Path("/data/coco/annotations/person_keypoints_train2017.json")
    assert config.data.val_set.images == Path("/data/coco/val2017")


def test_yaml_can_be_read_back(tmp_path: Path) -> None:
    config = load_config(None, ["train.epochs=7", "augment.photometric=[{transform: ColorJitter, p: 0.5}]"])
    assert load_config(write(tmp_path / "config.yaml", config.to_yaml())) == config


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("train.epoch=3", ["'train.epoch'", "'train.epochs'"]),
        ("trian.epochs=3", ["'trian'", "'train."]),
        ("train.epochs=0", ["train.epochs", "0"]),
        ("train.epochs=many", ["train.epochs", "'many'"]),
        ("model.name=dy_mobilenetv2_050-dybneck", ["'dy_mobilenetv2_050-dybneck'", "'dy_mobilenetv2_050-dy_bneck'"]),
        ("model.input_size=[100,128]", ["divisible by 32", "100"]),
        ("model.options={dept: 0.5}", ["model", "'dept'", "'depth'"]),
        ("model.options={dynamic_layers: [projct]}", ["model", "'projct'", "'project'"]),
        ("model.options={num_kernels: 2}", ["num_kernels", "model.num_kernels"]),
        ("model={name: resnet10-bneck, num_kernels: 8}", ["model", "num_kernels=8", "resnet10-bneck"]),
        ("model.options={temperature: 2}", ["train.temperature"]),
        ("train.loss=cross_entropy", ["model.output: softmax"]),
        ("augment.scale_range=[2,1]", ["scale_range"]),
        ("train.lr=.nan", ["train.lr"]),
        ("train.epochs", ["section.key=value"]),
        ("train.epochs.x=1", ["train.epochs"]),
        ("train.lr=[", ["YAML"]),
        ("data.root=~no-such-user/coco", ["data.root", "~no-such-user/coco", "home"]),
        ("train.epochs=true", ["train.epochs", "got True"]),
        ("model.input_size=[96, yes]", ["model.input_size", "got [96, True]"]),
        ("eval.box_threshold=2", ["eval.box_threshold", "less than or equal to 1"]),
        ("eval.nms=on", ["eval.nms", "got True"]),
        ("train={cuda_graph: true, accumulation: 2}", ["cuda_graph: true", "accumulation: 2"]),
        ("train={cuda_graph: true, precision: fp16}", ["cuda_graph: true", "precision: fp16"]),
        ("train.lr_drops=[2, -1]", ["train.lr_drops.1", "greater than or equal to 0", "-1"]),
    ],
)
def test_invalid_value_raises_with_key_and_value(tmp_path: Path, override: str, texts: list[str]) -> None:
    path = write(tmp_path / "a.yaml", "train: {epochs: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("/data/a #1", "2024", "2024-05-01", "12:30", "[old] x", "0123", "1e3", "inf", "on", "@a", "*a", "a: b", "%a"),
        *("C:\\data", "a=b", "'", "- a", "{a}", "a'b'"),
    ],
)
def test_paths_of_overrides_are_text(tmp_path: Path, text: str) -> None:
    overrides = [f"data.root={text}", f"data.boxes={text}", f"model.weights={text}"]
    config = load_config(None, overrides)
    assert config.data.root == config.data.boxes == config.model.weights == Path(text)
    assert load_config(write(tmp_path / "config.yaml", config.to_yaml())) == config


@pytest.mark.parametrize("text", ["12:30", "1:30.5", "-1:30"])
def test_numbers_to_the_base_of_60_are_text(tmp_path: Path, text: str) -> None:
    assert load_config(write(tmp_path / "a.yaml", f"data: {{val_images: {text}}}")).data.val_images == Path(text)
    path = write(tmp_path / "b.yaml", f"train: {{batch_size: {text}}}")
    for arguments in ((path, []), (None, [f"train.batch_size={text}"]), (None, [f"train.lr={text}"])):
        with pytest.raises(ConfigError, match=rf"expected a.*, got '{text}'"):
            load_config(*arguments)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.boxes=null", None),
        ("data.boxes=", None),
        ("data.boxes='null'", Path("null")),
        ("data.boxes='/data/a #1'", Path("/data/a #1")),
        ('data.boxes="/data/a b"', Path("/data/a b")),
        ('data.boxes="C:\\data"', Path('"C:\\data"')),
        ("data.boxes= /data/a ", Path("/data/a")),
        ("data.boxes=~", Path.home()),
    ],
)
def test_optional_paths_take_null_and_quotes(override: str, expected: Path | None) -> None:
    assert load_config(None, [override]).data.boxes == expected


@pytest.mark.parametrize("override", ["data.root=null", "model.name=2024", "train.loss=on", "train.precision=16"])
def test_invalid_text_of_an_override_raises_with_its_key(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError, match=rf"{key.partition('.')[0]}.*{value}"):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("data: {root: 2024}", "data.root"),
        ("data: {train_images: 2024-05-01}", "data.train_images"),
        ("data: {extra: [{annotations: 1.5, images: images}]}", "data.extra.0.annotations"),
        ("data: {skeleton: {upper_body: [nose, 1]}}", "data.skeleton.upper_body.1"),
        ("data: {root: [old] coco}", "YAML"),
    ],
)
def test_other_values_in_a_file_are_to_be_quoted(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / "a.yaml", text))
    assert key in str(caught.value)
    assert "in quotes" in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        *("train.epochs=1.5", "train.lr=x", "eval.flip=x", "train.batch_size=0", "model.input_size=[1, 2, 3]"),
        *("model.input_size=5", "data.extra=5", "data.extra=[{annotation: a}]", "train.temperature=5", "data.root="),
    ],
)
def test_errors_use_no_words_of_pydantic(override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]) as caught:
        load_config(None, [override])
    words = "Input|valid|instance|Field|unable|type|Tuple|Extra|pathlib"
    assert not re.search(words, str(caught.value).partition("invalid values")[2])


def test_dotted_key_in_a_file_raises(tmp_path: Path) -> None:
    for text, section in (("train.epochs: 5", "train"), ("train: {temperature.start: 5}", "train.temperature")):
        with pytest.raises(ConfigError, match=f"'{section}:'"):
            load_config(write(tmp_path / "a.yaml", text))


def test_empty_section_has_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "train:\nmodel: {name: mobilenetv2_035-deconv}\neval:\n")
    config = load_config(path)
    assert (config.train, config.eval) == (Config().train, Config().eval)
    assert load_config(path, ["train.epochs=4", "train.temperature.start=5"]).train.epochs == 4
    assert load_config(write(path, "train:\n  temperature:\n")) == Config()


def test_off_disables_nms(tmp_path: Path) -> None:
    assert load_config(None, ["eval.nms=off"]).eval.nms is None
    assert load_config(write(tmp_path / "a.yaml", "eval: {nms: no}")).eval.nms is None
    assert load_config(None, ["eval.flip=off"]).eval.flip is False


def test_home_directory_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    extra = "data.extra=[{annotations: ~/x.json, images: ~/x}]"
    config = load_config(None, ["data.root=~/coco", "data.boxes=~/b.json", "model.weights=~/w.pt", extra])
    assert config.data.train_set.images == Path("/home/ada/coco/train2017")
    assert config.data.boxes == Path("/home/ada/b.json")
    assert config.model.weights == Path("/home/ada/w.pt")
    assert config.data.extra[0].annotations == Path("/home/ada/x.json")
    assert config.data.extra[0].images == Path("/home/ada/x")


def test_other_files_raise(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="YAML"):
        load_config(write(tmp_path / "bad.yaml", "train: [1"))
    with pytest.raises(ConfigError, match="'epochs'"):
        load_config(write(tmp_path / "twice.yaml", "train: {epochs: 1, epochs: 2}"))
    with pytest.raises(ConfigError, match="sections"):
        load_config(write(tmp_path / "list.yaml", "- 1"))
    assert load_config(write(tmp_path / "empty.yaml", "")) == Config()


SWEEPS = sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml"))
CONFIGS = sorted(set((REPOSITORY / "configs").rglob("*.yaml")).difference(SWEEPS))


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(REPOSITORY)) for path in CONFIGS])
def test_every_configuration_file_loads_and_repeats_no_default(path: Path) -> None:
    is_classifier = path.parent.name in ("imagenet", "actions")
    config = load_classifier_config(path) if is_classifier else load_config(path)
    default = type(config)().model_dump(mode="json")
    for section, values in yaml.safe_load(path.read_text()).items():
        for key, value in values.items():
            # A configuration may name the default network.
            if (section, key) != ("model", "name"):
                assert value != default[section][key], f"{section}.{key} repeats the default"
    assert config.train.epochs >= 1


def test_every_key_is_used_by_the_code() -> None:
    """Each key must occur as an attribute outside the schema: an unused key is misleading."""
    schemas = list((REPOSITORY / "posedy" / "config").glob("*.py"))
    sources = "\n".join(path.read_text() for path in (REPOSITORY / "posedy").rglob("*.py") if path not in schemas)
    schema_source = "\n".join(path.read_text() for path in schemas)
    for section, values in [*Config().model_dump().items(), *ClassifierConfig().model_dump().items()]:
        keys = [*values, *values.get("skeleton", {})] if isinstance(values, dict) else [section]
        for key in keys:
            in_schema = any(use in schema_source for use in (f"self.{key}", f'field_validator("{key}")'))
            assert f".{key}" in sources or in_schema, f"{section}.{key} is not used"


PAPER_NETWORKS = [
    *("resnet18-deconv", "dy_resnet18-deconv", "mobilenetv2_100-deconv", "dy_mobilenetv2_100-deconv"),
    *("mobilenetv2_050-deconv", "dy_mobilenetv2_050-deconv", "mobilenetv3_small-deconv", "dy_mobilenetv3_small-deconv"),
    *("mobilenetv2_100-bneck", "dy_mobilenetv2_100-dy_bneck", "mobilenetv2_050-bneck", "dy_mobilenetv2_050-dy_bneck"),
    *("mobilenetv3_small-bneck", "dy_mobilenetv3_small-dy_bneck"),
    # Table 11
    *("mobilenetv2_050-dy_bneck", "dy_mobilenetv2_050-bneck"),
]


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_networks_of_tables_10_and_11_use_the_papers_recipe(name: str) -> None:
    config = load_config(REPOSITORY / "configs" / "coco" / f"{name}.yaml")
    with meta_device():
        net = create_model(config.model.name, num_kernels=config.model.num_kernels, **config.model.options)
    assert net.name == name
    others = config.model_dump(exclude={"model"})
    assert others == Config().model_dump(exclude={"model"})
    assert (config.model.input_size, config.model.num_kernels) == ((192, 256), 4)


def test_coco_configurations_are_those_of_tables_10_and_11() -> None:
    assert len(PAPER_NETWORKS) == 16
    assert {path.stem for path in (REPOSITORY / "configs" / "coco").iterdir()} == set(PAPER_NETWORKS)


@pytest.mark.slow
def test_reading_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys; from posedy.config import load_classifier_config, load_config;"
        "load_config(None, ['model.options={attention: sigmoid}']);"
        "load_classifier_config(None, ['model.name=dy_mobilenetv2_050']);"
        "print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_deleted_keys_with_their_defaults_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("train: {shared_decoding: false, shuffle_buffer: 2048, epochs: 3}")
    assert load_config(path).train.epochs == 3
    path.write_text("train: {shared_decoding: true}")
    with pytest.raises(ConfigError, match=r"train\.shared_decoding"):
        load_config(path)
