"""Schema of a configuration file: one frozen model per section, one comment per field.

Types are strict (text is not a number, true is not 1), unknown keys are refused, and numbers are
finite. Field names follow the project's vocabulary; docs/metrics.md defines the metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from fedlt.config.cohort import cohort_size
from fedlt.config.data_section import DataConfig
from fedlt.config.deployment_section import DeploymentConfig, FlowerConfig
from fedlt.config.evaluate_section import EvaluateConfig
from fedlt.config.faults_section import FaultsConfig
from fedlt.config.local_section import LocalConfig
from fedlt.config.model_section import ModelConfig
from fedlt.config.partition_section import PartitionConfig
from fedlt.config.privacy_section import PrivacyConfig
from fedlt.config.ranges import (
    Count,
    Epochs,
    Memory,
    Name,
    NotNegative,
    PartShare,
    Positive,
    Seed,
    Share,
)  # fmt: skip
from fedlt.config.section import Section as _Section
from fedlt.config.stop_section import StopConfig

_DEFAULT = {"strategy": "fedavg", "client": "cross_entropy"}


class PluginConfig(_Section):
    """A strategy or client plugin: its name, and its hyperparameters as free keys beside it.

    A file says ``{name: fedprox, mu: 0.1}``, or only ``fedprox``; in Python the same is
    ``PluginConfig(name="fedprox", options={"mu": 0.1})``.
    """

    name: StrictStr  # built-in name, entry point, file.py:Class, or package.module:Class
    options: dict[StrictStr, Any] = Field(default_factory=dict)  # hyperparameters by field name

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        return cls._collected(value)

    @staticmethod
    def _collected(value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, Mapping):
            return value
        free = {key: item for key, item in value.items() if key != "name"}
        if set(free) == {"options"} and isinstance(free["options"], Mapping):
            free = dict(free["options"])
        return {key: value[key] for key in ("name",) if key in value} | {"options": free}

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class ClientConfig(PluginConfig):
    """A client plugin; for a data plugin, also the loss plugin composed with it.

    ``{name: class_balanced_sampling, loss: focal}``, or ``loss: {name: focal, gamma: 1.0}``.
    """

    loss: PluginConfig | None = None

    @property
    def label(self) -> str:
        """Names of both plugins; for ``file.py:Class``, the class."""
        names = [self.name] if self.loss is None else [self.name, self.loss.name]
        return " + ".join(name.rpartition(":")[2] for name in names)

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        if isinstance(value, PluginConfig):
            value = value.model_dump()
        if not isinstance(value, Mapping):
            return cls._collected(value)
        rest = {key: item for key, item in value.items() if key != "loss"}
        return {**cls._collected(rest), "loss": value.get("loss")}

    @model_serializer
    def _flatten(self) -> dict[str, Any]:
        loss = {} if self.loss is None else {"loss": self.loss.model_dump()}
        return {"name": self.name, **loss, **self.options}


class PriorConfig(_Section):
    """Class prior of a loss, and the source of a global prior."""

    use: Literal["local_masked", "local_floor1", "global", "mix"] = "local_masked"
    gamma: Share = 0.5  # the local share of `mix`
    source: Literal["own", "sum", "secure_sum", "oracle"] = "own"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.use in ("global", "mix") and self.source == "own":
            raise ValueError(f"use: {self.use} needs source: sum, secure_sum or oracle, not own")
        if self.use.startswith("local_") and self.source != "own":
            raise ValueError(f"use: {self.use} needs source: own, not {self.source}")
        return self


class DiagnosticsConfig(_Section):
    """Diagnostics of the models during a run; they never change a result."""

    every: Count | None = None  # rounds between diagnostics, and after the last; None: none
    images: Count = 50  # most training images per class whose features are taken
    clients: Count = 4  # most clients whose next update is tried and predictions are compared


class RefreshConfig(_Section):
    """Training of personal parts just before scoring, alike for every method."""

    scope: Literal["head", "all"] = "head"
    epochs: Epochs = 0


class PersonalConfig(_Section):
    """Personal models."""

    refresh: RefreshConfig = RefreshConfig()


class EngineConfig(_Section):
    """Engine that runs client tasks; never changes a result."""

    name: StrictStr = "ray"  # built-in name, or file.py:Class
    workers: Literal["auto"] | Count = "auto"
    address: StrictStr | None = None  # host:port of a Ray cluster, or auto; None: this machine
    cpus_per_worker: Positive = 1  # cores set aside for a worker; a share, or whole ones
    gpus_per_worker: NotNegative = 0  # GPUs set aside for a worker; a share, or whole ones
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    stack: Literal["auto"] | Count = "auto"  # clients that `stacked` trains as one model, at most
    compile: Annotated[bool, Field(strict=True)] = False  # the backbone, by PyTorch's compiler
    personal_memory: Memory = 1024  # MiB of personal states in the driver; more states go to disk

    @field_validator("cpus_per_worker", "gpus_per_worker")
    @classmethod
    def _is_share_or_whole(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(f"{value:g} is neither a share of one nor a whole number")
        return value


class ReportConfig(_Section):
    """Contents of the run's report that a user allows; never changes a result."""

    client_names: Annotated[bool, Field(strict=True)] = False  # names of natural clients


class CheckpointConfig(_Section):
    """Rounds in which the state of a run is saved."""

    every: Count = 10  # rounds


class Config(_Section):
    """Configuration of an experiment: the content of a file."""

    name: Name  # names the run directory: output/name/seed
    seed: Seed = 1
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] | None = (
        None  # several runs, in turn
    )
    rng_salt: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] = (
        0  # an independent repeat under the same seed
    )
    rounds: Count
    clients_per_round: Count | PartShare | None = None  # a number or a share; None: all clients
    sampling: Literal["uniform", "by_size"] = "uniform"  # by_size: drawn by images, with repeats
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig = ModelConfig()
    strategy: PluginConfig = PluginConfig(name=_DEFAULT["strategy"])
    client: ClientConfig = ClientConfig(name=_DEFAULT["client"])
    local: LocalConfig = LocalConfig()
    batchnorm: Literal["average", "pooled", "local"] = "average"  # statistics under aggregation
    prior: PriorConfig = PriorConfig()
    privacy: PrivacyConfig | None = None  # differential privacy; None: no clipping and no noise
    evaluate: EvaluateConfig = EvaluateConfig()
    stop: StopConfig | None = None  # end before `rounds`; None: never
    personal: PersonalConfig = PersonalConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    trackers: list[Literal["tensorboard", "mlflow", "wandb"]] = Field(default_factory=list)
    faults: FaultsConfig = FaultsConfig()
    engine: EngineConfig = EngineConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    report: ReportConfig = ReportConfig()
    deployment: DeploymentConfig = DeploymentConfig()
    flower: FlowerConfig = FlowerConfig()
    output: StrictStr = "runs"  # folder of all run directories

    @field_validator("strategy", "client", mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401 (whatever is given)
        if isinstance(value, Mapping) and "name" not in value and info.field_name:
            return {"name": _DEFAULT[info.field_name], **value}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.seeds is not None:
            if "seed" in self.model_fields_set:
                raise ValueError("give seed or seeds, not both")
            if len(set(self.seeds)) < len(self.seeds):
                raise ValueError(f"seeds: {self.seeds} names a seed twice")
        self._check_stop()
        chosen = self.evaluate.selected_round
        if chosen is not None and chosen > self.rounds:
            raise ValueError(
                f"evaluate.selected_round: {chosen} is more than rounds: {self.rounds}"
            )
        late = self.faults.late
        if late.share and (late.last or late.first) > self.rounds:
            name = "first" if late.last is None else "last"
            last = late.last or late.first
            raise ValueError(f"faults.late.{name}: {last} is more than rounds: {self.rounds}")
        if self.sampling == "by_size":
            self._check_by_size()
        if self.engine.compile and self.privacy is not None and self.privacy.mechanism == "sample":
            raise ValueError(
                "engine.compile: privacy.mechanism: sample takes each image's gradient alone, "
                "which PyTorch does not compile; leave engine.compile off"
            )
        if not self.partition.follows:
            self._check_cohort(self.partition.num_clients)
        return self

    def _check_stop(self) -> None:
        if self.stop is not None and self.data.split != "tune":
            raise ValueError(
                f"stop: needs data.split: tune, not {self.data.split}: a last round chosen on the "
                "test images would be too good; stop on tune, then give rounds"
            )
        if self.stop is not None and self.evaluate.selected_round is not None:
            raise ValueError(
                "stop: evaluate.selected_round names a round, which may not be reached"
            )

    def _check_by_size(self) -> None:
        if self.clients_per_round is None:
            raise ValueError("sampling: by_size needs clients_per_round: without it all take part")
        if self.prior.source == "secure_sum":
            raise ValueError(
                "sampling: by_size may draw one client alone, whose class counts "
                "prior.source: secure_sum would tell; take uniform"
            )

    def _check_cohort(self, num_clients: int) -> None:
        cohort = cohort_size(self.clients_per_round, num_clients)
        if cohort > num_clients:
            raise ValueError(
                f"clients_per_round: {cohort} is more than partition.num_clients: {num_clients}"
            )
        if self.prior.source == "secure_sum" and cohort < 2:
            raise ValueError(
                f"prior.source: secure_sum needs at least 2 clients per round, not {cohort}"
            )
        if self.evaluate.clients != "all" and self.evaluate.clients > num_clients:
            raise ValueError(
                f"evaluate.clients: {self.evaluate.clients} is more than "
                f"partition.num_clients: {num_clients}"
            )

    def runs(self) -> list[Config]:
        """Return one configuration per seed, each with ``seed`` set and ``seeds`` None."""
        seeds = [self.seed] if self.seeds is None else self.seeds
        return [self.model_copy(update={"seed": seed, "seeds": None}) for seed in seeds]
