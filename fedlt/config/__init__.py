"""Configuration file: schema, reading, hashing, and the classes that the file names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedlt.config.data_section import DataConfig
    from fedlt.config.evaluate_section import EvaluateConfig
    from fedlt.config.faults_section import FaultsConfig
    from fedlt.config.identity import config_hash, file_digests, settings_of, user_code
    from fedlt.config.load import build_config, load_config, to_yaml
    from fedlt.config.local_section import LocalConfig, ScheduleConfig
    from fedlt.config.model_section import ModelConfig
    from fedlt.config.partition_section import PartitionConfig
    from fedlt.config.schema import (
        CheckpointConfig,
        ClientConfig,
        Config,
        DiagnosticsConfig,
        EngineConfig,
        PersonalConfig,
        PluginConfig,
        PriorConfig,
        RefreshConfig,
        ReportConfig,
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
    "ReportConfig",
    "ScheduleConfig",
    "build_config",
    "config_hash",
    "file_digests",
    "load_config",
    "settings_of",
    "to_yaml",
    "user_code",
]


def __getattr__(name: str) -> object:
    """Return a name of ``__all__``, imported when asked for: `fedlt --help` needs no schema.

    Raises:
        AttributeError: For every other name.
    """
    if name in __all__:
        for module in ("identity", "load", "local_section", "schema"):
            found = vars(importlib.import_module(f"fedlt.config.{module}"))
            if name in found:
                return found[name]
    raise AttributeError(f"module 'fedlt.config' has no attribute {name!r}")
