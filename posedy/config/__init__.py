"""The configuration of an experiment: its schema and its reading."""

from posedy.config.reading import DELETED_KEYS, ConfigError, load_config, read_yaml, upgrade_keys
from posedy.config.schema import (
    AugmentConfig,
    Config,
    DataConfig,
    EvalConfig,
    KeypointSet,
    Loss,
    ModelConfig,
    Precision,
    Schedule,
    SkeletonConfig,
    TemperatureConfig,
    TrainConfig,
)

__all__ = [
    "DELETED_KEYS",
    "AugmentConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "KeypointSet",
    "Loss",
    "ModelConfig",
    "Precision",
    "Schedule",
    "SkeletonConfig",
    "TemperatureConfig",
    "TrainConfig",
    "load_config",
    "read_yaml",
    "upgrade_keys",
]
