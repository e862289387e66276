"""The configuration of an experiment: its schema and its reading."""

from posedy.config.augmentation import AugmentConfig, ConsistencyConfig
from posedy.config.reading import DELETED_KEYS, ConfigError, load_config, read_yaml, upgrade_keys
from posedy.config.schema import (
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
    "ConsistencyConfig",
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
