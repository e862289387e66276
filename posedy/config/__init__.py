"""The configuration of an experiment: its schema and its reading."""

from posedy.config.augmentation import AugmentConfig, ConsistencyConfig
from posedy.config.classification import (
    ClassifierAugmentConfig,
    ClassifierConfig,
    ClassifierEvalConfig,
    ClassifierTrainConfig,
    ImageFolderConfig,
)
from posedy.config.loop import LoopConfig, Optimizer, Precision, Schedule, TemperatureConfig
from posedy.config.reading import (
    DELETED_KEYS,
    ConfigError,
    flatten_keys,
    load_classifier_config,
    load_config,
    override_keys,
    read_yaml,
    upgrade_keys,
)
from posedy.config.schema import (
    Config,
    DataConfig,
    EvalConfig,
    KeypointSet,
    Loss,
    ModelConfig,
    SkeletonConfig,
    TrainConfig,
)

__all__ = [
    "DELETED_KEYS",
    "AugmentConfig",
    "ClassifierAugmentConfig",
    "ClassifierConfig",
    "ClassifierEvalConfig",
    "ClassifierTrainConfig",
    "Config",
    "ConfigError",
    "ConsistencyConfig",
    "DataConfig",
    "EvalConfig",
    "ImageFolderConfig",
    "KeypointSet",
    "LoopConfig",
    "Loss",
    "ModelConfig",
    "Optimizer",
    "Precision",
    "Schedule",
    "SkeletonConfig",
    "TemperatureConfig",
    "TrainConfig",
    "flatten_keys",
    "load_classifier_config",
    "load_config",
    "override_keys",
    "read_yaml",
    "upgrade_keys",
]
