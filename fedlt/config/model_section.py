"""The section ``model`` of a configuration file: the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, StrictBool, StrictStr, model_validator

from fedlt.config.ranges import Depth, Width
from fedlt.config.section import Section

# Published networks without normalisation: `norm` is none where a file does not give it.
_WITHOUT_NORM: Final = ("fedavg_cnn", "identity")


class ModelConfig(Section):
    """The backbone: ``{name: resnet8, width: 8}``, or only ``resnet8``."""

    name: StrictStr = "cnn"  # built-in name, timm:NAME, torchvision:NAME, or file.py:function
    width: Width | None = None  # channels of the first stage; None: the published width
    norm: Literal["batch", "group", "none"] = "batch"
    depth: Depth = 1  # hidden layers of mlp
    weights: StrictStr | None = None  # a state dict, or a finished run: where the backbone begins
    freeze: Literal["all"] | tuple[StrictStr, ...] = ()  # prefixes of names in the backbone
    cache_features: StrictBool = False  # features of a frozen backbone are computed once
    options: dict[StrictStr, Any] = Field(default_factory=dict)  # of a library's or user's network

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, Mapping) and value.get("name") in _WITHOUT_NORM:
            return {"norm": "none", **value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.cache_features and not self.freeze:
            raise ValueError("cache_features: needs freeze: all, since trained features change")
        return self

    def network(self) -> dict[str, Any]:
        """Return what says which network is built, as arguments of ``models.build_model``."""
        return self.model_dump(include={"name", "width", "norm", "depth", "options"})
