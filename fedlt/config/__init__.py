"""The configuration file: schema, reading, hashing, and the classes that it names."""

from __future__ import annotations

from fedlt.config.load import (
    build_config,
    config_hash,
    differing_keys,
    file_digests,
    load_config,
    to_yaml,
    user_code,
)
from fedlt.config.plugins import known_plugins, resolve_client, resolve_strategy
from fedlt.config.schema import (
    CheckpointConfig,
    ClientConfig,
    Config,
    DataConfig,
    DiagnosticsConfig,
    EngineConfig,
    EvaluateConfig,
    FaultsConfig,
    LocalConfig,
    ModelConfig,
    PartitionConfig,
    PersonalConfig,
    PluginConfig,
    PriorConfig,
    RefreshConfig,
    ScheduleConfig,
)

__all__ = [
    "CheckpointConfig",
    "ClientConfig",
    "Config",
    "DataConfig",
    "DiagnosticsConfig",
    "EngineConfig",
    "EvaluateConfig",
    "FaultsConfig",
    "LocalConfig",
    "ModelConfig",
    "PartitionConfig",
    "PersonalConfig",
    "PluginConfig",
    "PriorConfig",
    "RefreshConfig",
    "ScheduleConfig",
    "build_config",
    "config_hash",
    "differing_keys",
    "file_digests",
    "known_plugins",
    "load_config",
    "resolve_client",
    "resolve_strategy",
    "to_yaml",
    "user_code",
]
