"""Look-up of strategies and client plugins by the names in a configuration.

A name is looked up in ``strategies.STRATEGIES`` or ``clients.CLIENTS``, among the short names of
``strategies.FLOWER``, then among the entry points ``fedlt.strategies`` and ``fedlt.clients``;
``file.py:Class`` and ``package.module:Class`` are loaded.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import PydanticSerializationError, to_json

from fedlt.config.explain import refusal
from fedlt.config.loading import (
    check_packages,
    installed_points,
    is_spec,
    load_object,
    load_users_object,
)
from fedlt.config.raised import users_code
from fedlt.config.ranges import hints_of
from fedlt.config.schema import Config, PluginConfig
from fedlt.errors import FedltError, nearest, shortened

if TYPE_CHECKING:
    from fedlt.client import ClientPlugin
    from fedlt.flower.stock import StockStrategy
    from fedlt.strategy import Strategy

_MOST_WHOLE = 1_000_000  # of a whole hyperparameter; a seed has the range of seeds
_TABLES = {"strategy": ("strategies", "STRATEGIES"), "client": ("clients", "CLIENTS")}
# Arguments of Flower's strategies that follow from the rest of the file.
_SET_BY_FEDLT = {
    "fraction_train",
    "fraction_evaluate",
    "min_train_nodes",
    "min_evaluate_nodes",
    "min_available_nodes",
    "weighted_by_key",
    "arrayrecord_key",
    "configrecord_key",
}


def _builtin(section: str) -> Mapping[str, type]:
    """Return the table of built-in classes; refuse a user's folder that hides it."""
    check_packages()
    package, table = _TABLES[section]
    module = importlib.import_module(package)
    classes: Mapping[str, type] = getattr(module, table)
    return classes


def _short_names(section: str) -> Mapping[str, tuple[str, Mapping[str, object]]]:
    """Return the ``package.module:Class`` and the options of every built-in short name."""
    check_packages()
    module = importlib.import_module(_TABLES[section][0])
    names: Mapping[str, tuple[str, Mapping[str, object]]] = getattr(module, "FLOWER", {})
    return names


def is_built_in(section: str, name: str) -> bool:
    """Return True if a name of ``strategy`` or ``client`` is one of fedlt's own methods."""
    return name in [*_builtin(section), *_short_names(section)]  # imports no class


def _loaders(section: str) -> dict[str, Callable[[], Any]]:
    """Return a loader of the class for every known name; built-in names win over entry points."""
    group = f"fedlt.{_TABLES[section][0]}"
    found: dict[str, Callable[[], Any]] = {
        point.name: point.load for point in installed_points(group)
    }
    short = _short_names(section).items()
    found |= {n: partial(load_object, spec, f"{section}.name") for n, (spec, _) in short}
    classes = _builtin(section)
    return found | {name: partial(classes.__getitem__, name) for name in classes}


def known_plugins(section: str) -> dict[str, str]:
    """Return every known name with the first line of its class's docstring.

    Args:
        section: ``"strategy"`` or ``"client"``.
    """
    lines = {}
    for name, load in sorted(_loaders(section).items()):
        try:
            lines[name] = (inspect.getdoc(load()) or "").partition("\n")[0]
        except Exception as error:  # an entry point of a foreign package
            lines[name] = f"cannot be loaded: {error!r}"
    return lines


def client_kinds() -> dict[str, str]:
    """Return the kind of every known client plugin by name: data, loss, whole; "" if unknown."""
    from fedlt.methods.composition import kind_of

    kinds = {}
    for name, load in _loaders("client").items():
        try:
            kinds[name] = str(kind_of(load()))
        except Exception:  # an entry point of a foreign package: known_plugins says more
            kinds[name] = ""
    return kinds


def client_control(name: object) -> dict[str, object]:
    """Return the hyperparameters of a client plugin's control run; empty without a control."""
    if not isinstance(name, str) or not (is_spec(name) or name in _loaders("client")):
        return {}
    cls = _find_class("client", name, "client.name")
    return dict(cls.traits.control) if hasattr(cls, "traits") else {}


def _find_class(section: str, name: str, where: str) -> Any:  # noqa: ANN401 (checked by the caller)
    check_packages()  # a user's file imports these packages, too
    if is_spec(name):
        return load_users_object(name, where)
    loaders = _loaders(section)
    if name not in loaders:
        other = "client" if section == "strategy" else "strategy"
        if name in _loaders(other):
            words = {"strategy": "a strategy", "client": "a client plugin"}
            raise FedltError(
                f"{where}: {name!r} is {words[other]}, not {words[section]}; give {other}={name}"
            )
        raise FedltError(f"{where}: unknown {section} {shortened(name)!r}{nearest(name, loaders)}")
    try:
        return loaders[name]()
    except Exception as error:
        raise FedltError(f"{where}: entry point {name!r} fails on import: {error!r}") from error


def plugin_section(name: str) -> Literal["strategy", "client"]:
    """Return the section of a file in which ``name`` stands.

    Raises:
        FedltError: If ``name`` is neither a strategy nor a client plugin.
    """
    if not is_spec(name):
        strategies, clients = _loaders("strategy"), _loaders("client")
        if name in strategies:
            return "strategy"
        if name in clients:
            return "client"
        choices = nearest(name, {**strategies, **clients})
        raise FedltError(f"no strategy or client plugin {name!r}{choices}")
    from fedlt.client import ClientPlugin

    check_packages()
    found = load_users_object(name, "name")
    is_plugin = isinstance(found, type) and issubclass(found, ClientPlugin)
    return "client" if is_plugin else "strategy"


def _check_contract(cls: type, base: Any, where: str) -> None:  # noqa: ANN401 (Strategy or ClientPlugin)
    """Raise unless ``cls`` is a frozen dataclass whose verbs have the arguments of ``base``."""
    own = [n for n in inspect.get_annotations(cls) if not _is_class_variable(cls, n)]
    if "__init__" in vars(cls) and "__dataclass_params__" not in vars(cls):
        raise FedltError(
            f"{where}: {cls.__name__} has its own __init__; declare its hyperparameters as fields "
            "and put @dataclass(frozen=True) above the class"
        )
    if own and "__dataclass_params__" not in vars(cls):
        raise FedltError(
            f"{where}: {cls.__name__} declares {own[0]!r} but is not a dataclass; "
            "put @dataclass(frozen=True) above the class"
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise FedltError(f"{where}: {cls.__name__} must define {missing}")
    kind = type(base.traits)
    hyperparameters = {field.name for field in dataclasses.fields(cls)}
    for trait in (field.name for field in dataclasses.fields(kind)):
        if trait not in hyperparameters and hasattr(cls, trait):
            raise FedltError(
                f"{where}: {cls.__name__}.{trait} is read from its traits; "
                f"write 'traits = {kind.__name__}({trait}=...)' in the class"
            )
    for verb, original in inspect.getmembers(base, inspect.isfunction):
        if not verb.startswith("_"):
            _check_verb(cls, verb, original, where)


def _check_verb(cls: type, verb: str, original: Callable[..., Any], where: str) -> None:
    declared = inspect.signature(original).parameters
    keywords = [name for name, p in declared.items() if p.kind is p.KEYWORD_ONLY]
    parameters = [name for name in declared if name not in keywords]
    function = inspect.getattr_static(cls, verb)
    listed = ", ".join([*parameters, *(f"{name}=" for name in keywords)])
    text = f"{where}: {cls.__name__}.{verb} must be a method taking ({listed})"
    if isinstance(function, staticmethod):
        function, parameters = function.__func__, parameters[1:]
    elif isinstance(function, classmethod):
        function = function.__func__
    if not inspect.isfunction(function):
        raise FedltError(text)
    try:
        inspect.signature(function).bind(*parameters, **dict.fromkeys(keywords))
    except TypeError as error:
        raise FedltError(text) from error


def _is_class_variable(cls: type, name: str) -> bool:
    return "ClassVar" in str(inspect.get_annotations(cls)[name])


def _check_finite(key: str, value: object) -> None:
    """Raise for a number that is not finite, or a whole number that is absurdly large."""
    if isinstance(value, int) and not key.endswith("seed") and abs(value) > _MOST_WHOLE:
        raise FedltError(f"{key} is {value}; expected at most {_MOST_WHOLE:,} in size")
    if isinstance(value, float) and not math.isfinite(value):
        raise FedltError(f"{key} is {value}; expected a finite number")
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_finite(key, item)


def _validated(key: str, value: object, hint: Any) -> object:  # noqa: ANN401 (a type)
    """Return ``value`` as the type ``hint``; strict, but a list may become a tuple or a set."""
    _check_finite(key, value)
    try:
        validated: object = TypeAdapter(hint).validate_json(to_json(value), strict=True)
        return validated
    except ValidationError as error:
        raise FedltError(refusal(key, value, error.errors())) from error
    except (PydanticSchemaGenerationError, PydanticUserError, PydanticSerializationError) as error:
        raise FedltError(f"{key}: a {hint} cannot be given in a file") from error


def _validated_options(
    section: str, plugin: PluginConfig, cls: type, hints: Mapping[str, Any], required: set[str]
) -> dict[str, object]:
    for key in plugin.options:
        if key not in hints:
            annotated = any(key in inspect.get_annotations(one) for one in cls.__mro__)
            plain = None if annotated else getattr(cls, key, None)
            if isinstance(plain, bool | int | float | str | tuple):
                kind = type(plain).__name__
                raise FedltError(
                    f"{section}.{key}: {cls.__name__}.{key} has no annotation, so it is no field; "
                    f"write '{key}: {kind} = {plain!r}' in the class"
                )
            choices = nearest(key, hints) if hints else "; it has none"
            raise FedltError(f"{section}.{key}: unknown hyperparameter of {plugin.name!r}{choices}")
    for key in sorted(required - set(plugin.options)):
        raise FedltError(f"{section}.{key} is missing: {plugin.name!r} has no default for it")
    return {
        key: _validated(f"{section}.{key}", value, hints[key])
        for key, value in plugin.options.items()
    }


def _instantiate(section: str, plugin: PluginConfig, cls: type, base: type) -> Any:  # noqa: ANN401
    where = f"{section}.name: {plugin.name!r}"
    _check_contract(cls, base, where)
    hints = hints_of(cls, where)
    fields = [f for f in dataclasses.fields(cls) if f.init]
    required = {
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    known = {f.name: hints[f.name] for f in fields}
    options = _validated_options(section, plugin, cls, known, required)
    return _construct(section, plugin, cls, options)


def _construct(section: str, plugin: PluginConfig, cls: type, options: Mapping[str, object]) -> Any:  # noqa: ANN401
    with users_code(f"{section}: {plugin.name!r} refuses {shortened(repr(dict(options)), 300)}"):
        return cls(**options)


def _stock(plugin: PluginConfig, cls: Any) -> StockStrategy:  # noqa: ANN401 (a Flower class)
    """Return a strategy of Flower itself; its options are the arguments of the constructor."""
    from fedlt.flower.stock import StockStrategy
    from fedlt.flower.stock_options import check_stock_options

    where = f"strategy.name: {plugin.name!r}"
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise FedltError(f"{where}: {cls.__name__} must define {missing}")
    for key in _SET_BY_FEDLT & set(plugin.options):
        raise FedltError(f"strategy.{key}: set by fedlt; clients_per_round sets the cohort")
    hints = hints_of(cls.__init__, where)
    named = [
        p
        for p in inspect.signature(cls).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    required = {p.name for p in named if p.default is p.empty}
    accepted = {p.name: hints.get(p.name, Any) for p in named if p.name not in _SET_BY_FEDLT}
    options = _validated_options("strategy", plugin, cls, accepted, required)
    check_stock_options(cls, options)
    _construct("strategy", plugin, cls, options)
    return StockStrategy(cls, options)


def resolve_strategy(config: Config) -> Strategy:
    """Return the strategy that ``config.strategy`` names, with its hyperparameters set.

    Raises:
        FedltError: If the name, the class or a hyperparameter is not valid.
    """
    from fedlt.strategy import Strategy

    plugin = config.strategy
    cls = _find_class("strategy", plugin.name, "strategy.name")
    if not is_spec(plugin.name):
        _, options = _short_names("strategy").get(plugin.name, ("", {}))
        plugin = plugin.model_copy(update={"options": {**options, **plugin.options}})
    strategy: Strategy
    if isinstance(cls, type) and issubclass(cls, Strategy):
        strategy = _instantiate("strategy", plugin, cls, Strategy)
        return strategy
    if isinstance(cls, type):
        from flwr.serverapp.strategy import Strategy as FlowerStrategy

        if issubclass(cls, FlowerStrategy):
            strategy = _stock(plugin, cls)
            return strategy
    raise FedltError(
        f"strategy.name: {plugin.name!r} is not a class derived from fedlt.strategy.Strategy "
        "or flwr.serverapp.strategy.Strategy; derive it from one"
    )


def resolve_client(config: Config) -> ClientPlugin:
    """Return the client plugin that ``config.client`` names, with its hyperparameters set.

    A data plugin comes with the loss plugin of ``client.loss``, or with plain cross-entropy.

    Raises:
        FedltError: If a name, class or hyperparameter is not valid, or the plugins do not compose.
    """
    from fedlt.methods.composition import compose, kind_of

    section = config.client
    plugin = _resolve_part("client", section)
    if section.loss is None and kind_of(type(plugin)) != "data":
        return plugin
    loss = _resolve_part("client.loss", section.loss or PluginConfig(name="cross_entropy"))
    try:
        return compose(plugin, loss)
    except ValueError as error:
        raise FedltError(f"client: {error}") from error


def _resolve_part(where: str, plugin: PluginConfig) -> ClientPlugin:
    from fedlt.client import ClientPlugin

    cls = _find_class("client", plugin.name, f"{where}.name")
    if not (isinstance(cls, type) and issubclass(cls, ClientPlugin)):
        raise FedltError(
            f"{where}.name: {plugin.name!r} is not a class derived from "
            "fedlt.client.ClientPlugin; derive it from that"
        )
    client: ClientPlugin = _instantiate(where, plugin, cls, ClientPlugin)
    return client
