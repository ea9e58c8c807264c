"""The section ``model`` of a configuration file: the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import StrictStr, model_validator

from fedlt.config.ranges import Depth, Width
from fedlt.config.section import Section

# Published networks without normalisation: `norm` is none where a file does not give it.
_WITHOUT_NORM: Final = ("fedavg_cnn",)


class ModelConfig(Section):
    """The backbone."""

    name: StrictStr = "cnn"  # built-in name, or file.py:function, package.module:function
    width: Width | None = None  # channels of the first stage; None: the published width
    norm: Literal["batch", "group", "none"] = "batch"
    depth: Depth = 1  # hidden layers of mlp

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        if isinstance(value, Mapping) and value.get("name") in _WITHOUT_NORM:
            return {"norm": "none", **value}
        return value
