"""Reading of a configuration from defaults, a YAML file and `key=value` overrides."""

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from posedy.config.classification import ClassifierConfig
from posedy.config.schema import Config
from posedy.config.section import as_section, is_text
from posedy.registration import nearest_name

S = TypeVar("S", bound=BaseModel)

DELETED_KEYS: dict[str, Any] = {"train.shared_decoding": False, "train.shuffle_buffer": 2048}
"""Deleted keys of earlier versions with their defaults; files with the default values still load."""

_RENAMED_KEYS = {
    "model.coding": "model.codec",
    "eval.padding": "data.padding",
    "augment.flip": "augment.flip_probability",
}
_RENAMED_VALUES = {("model.codec", "paper"): "msra"}


class ConfigError(ValueError):
    """An invalid configuration; the message names the key."""


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        path: a YAML file with the values that differ from the defaults; None uses the defaults.
        overrides: `section.key=value` strings. Paths and names are taken as they are, without YAML's rules: `null` is
            None, and quotes around a value are removed. Other values are YAML.

    Raises:
        OSError: if the file cannot be read.
        ConfigError: if it is not YAML, a key is unknown (the message has the nearest valid one) or a value is invalid.
    """
    return _load(path, overrides, Config)


def load_classifier_config(path: str | Path | None, overrides: Sequence[str] = ()) -> ClassifierConfig:
    """Reads the configuration of a classifier, see `load_config`."""
    return _load(path, overrides, ClassifierConfig)


def override_keys(overrides: Sequence[str]) -> list[str]:
    """Returns the dotted keys that `section.key=value` strings set; a mapping as value sets those in it.

    Raises:
        ConfigError: if a string is invalid.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        _apply_override(values, override, Config)
    return list(flatten_keys(values))


def flatten_keys(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested mappings by dotted keys, such as model.options.depth."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten_keys(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _load(path: str | Path | None, overrides: Sequence[str], schema: type[S]) -> S:
    values: dict[str, Any] = {}
    if path is not None:
        values = read_yaml(Path(path))
    if isinstance(overrides, str):
        raise ConfigError(f"expected a list of section.key=value strings, got {overrides!r}: write [{overrides!r}]")
    for override in overrides:
        if not isinstance(override, str):
            raise ConfigError(f"expected section.key=value, such as train.epochs=210, got {override!r}")
        key = override.partition("=")[0]
        if key in _RENAMED_KEYS:
            raise ConfigError(f"{override!r}: the key {key} is now {_RENAMED_KEYS[key]}")
        _apply_override(values, override, schema)
    source = str(path) if path is not None else "the command line"
    _drop_deleted(values, source)
    upgrade_keys(values)
    valid_keys = list(_valid_keys(schema))
    for key in _unknown_keys(values, schema):
        if key in valid_keys:
            section, _, name = key.rpartition(".")
            raise ConfigError(
                f"{source}: dotted key {key!r} is only valid on the command line: write '{name}: ...' indented below "
                f"the section '{section}:'"
            )
        nearest = nearest_name(key, valid_keys)
        raise ConfigError(f"{source}: unknown key {key!r}; the nearest valid key is {nearest!r}")
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = [
            f"  {'.'.join(map(str, item['loc'])) or 'configuration'}: {_describe(item)}" for item in error.errors()
        ]
        raise ConfigError("\n".join([f"{source}: invalid values", *problems])) from None


_EXPECTED = {
    "path_type": "expected a path",
    "string_type": "expected text",
    "int_type": "expected an integer",
    "int_parsing": "expected an integer",
    "int_from_float": "expected an integer",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "list_type": "expected a list, such as [a, b]",
    "tuple_type": "expected a list, such as [a, b]",
    "dict_type": "expected keys and values, such as {a: 1}",
    "model_type": "expected keys and values, such as {a: 1}",
    "too_long": "expected fewer values",
    "missing": "this key is missing",
    "extra_forbidden": "unknown key",
}
"""What pydantic expects, by the type of its error; other messages keep its words."""


def _describe(error: ErrorDetails) -> str:
    """Describes an invalid value."""
    kind, value = error["type"], error["input"]
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, ")
    verb = "expected a value" if "_than" in kind else "expected"
    expected = _EXPECTED.get(kind, error["msg"].replace("Input should be", verb))
    hint = ""
    if kind in ("path_type", "string_type"):
        if isinstance(value, int | float | datetime.date):
            hint = "; YAML reads text such as 2024 as a number and 2024-05-01 as a date: write it in quotes"
        elif value is None:
            hint = "; leave the key out for its default"
    return f"{expected}, got {'null' if value is None else repr(value)}{hint}"


class _Loader(yaml.SafeLoader):
    """A safe YAML loader that rejects duplicate keys, which YAML's own would overwrite silently.

    12:30 is text, as in YAML 1.2, not the number 750 to the base of 60 of YAML 1.1.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_yaml_number(self, node: yaml.ScalarNode) -> Any:
        """Constructs an integer or a decimal number."""
        if ":" in node.value:
            return self.construct_scalar(node)
        is_integer = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_integer else self.construct_yaml_float(node)


for _number in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_number}", _Loader.construct_yaml_number)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that contains a mapping; an empty file gives an empty mapping.

    Raises:
        OSError: if the file cannot be read.
        ConfigError: if it is not YAML or not a mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no configuration at {path.resolve()}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not YAML: {error}\nwrite text with characters such as [ : # @ in quotes"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as 'data:' and 'train:', got {type(values).__name__}")
    return values


def _apply_override(values: dict[str, Any], override: str, schema: type[BaseModel]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected section.key=value, such as train.epochs=210, got {override!r}")
    value = _parse_text(text) if _is_text_key(key, schema) else _parse_yaml(text, override)
    *sections, name = key.split(".")
    for section in sections:
        inner = values[section] = {} if values.get(section) is None else values[section]
        if not isinstance(inner, dict):
            raise ConfigError(f"{override!r}: {section!r} is not a section")
        values = inner
    values[name] = value


def _is_text_key(key: str, schema: type[BaseModel]) -> bool:
    """Returns whether a dotted key has paths or strings as values; False for unknown keys."""
    model: type[BaseModel] | None = schema
    *sections, name = key.split(".")
    for section in sections:
        model = dict(_sections(model)).get(section) if model is not None else None
    return model is not None and name in model.model_fields and is_text(model.model_fields[name].annotation)


def _parse_text(text: str) -> str | None:
    """Returns a path or a name as it is given, without quotes around it; None for null and for no text."""
    text = text.strip()
    if text[:1] in ("'", '"') and len(text) > 1 and text[-1] == text[0]:
        with contextlib.suppress(yaml.YAMLError):
            quoted = yaml.safe_load(text)
            return quoted if isinstance(quoted, str) else text
    return None if text in ("", "null", "Null", "NULL") else text


def _parse_yaml(text: str, override: str) -> Any:
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of {override!r} is not YAML: {error}") from None
    # YAML 1.1 parses 1e-3, without a dot, as a string
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    return value


def _drop_deleted(values: dict[str, Any], source: str) -> None:
    """Removes deleted keys of earlier versions from the values if they have their defaults."""
    for key, default in DELETED_KEYS.items():
        section, _, name = key.partition(".")
        inner = values.get(section)
        if isinstance(inner, dict) and name in inner and inner.pop(name) != default:
            raise ConfigError(f"{source}: {key} was deleted, only its default {default!r} is accepted: remove it")


def upgrade_keys(values: dict[str, Any]) -> None:
    """Renames the keys of a nested configuration of an earlier version, in place; current keys have precedence."""
    for old, new in _RENAMED_KEYS.items():
        section, _, name = old.partition(".")
        inner = values.get(section)
        if not isinstance(inner, dict) or name not in inner:
            continue
        value = inner.pop(name)
        new_section, _, new_name = new.partition(".")
        target = values[new_section] = values.get(new_section) or {}
        if isinstance(target, dict):
            target.setdefault(new_name, _RENAMED_VALUES.get((new, value), value) if isinstance(value, str) else value)


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel] | None]]:
    for name, field in model.model_fields.items():
        yield name, as_section(field.annotation)


def _valid_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, section in _sections(model):
        if section is not None:
            yield from _valid_keys(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _unknown_keys(values: dict[str, Any], model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    sections = dict(_sections(model))
    for name, value in values.items():
        if name not in sections:
            yield f"{prefix}{name}"
        elif (section := sections[name]) is not None and isinstance(value, dict):
            yield from _unknown_keys(value, section, f"{prefix}{name}.")
