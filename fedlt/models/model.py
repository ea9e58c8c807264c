"""``Model``: one backbone, named heads, and the group of every parameter and buffer.

Besides, there may be networks of a client plugin's own, such as a teacher: they are averaged, kept
or fixed by their group as the rest is, but trained by the plugin alone.

A group says where a tensor lives: ``shared`` tensors travel and are averaged, ``personal`` ones
stay with their client, ``fixed`` ones are never trained and never averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedlt.errors import FedltError, nearest
from fedlt.machine.memory import Layout
from fedlt.models.heads import CosineHead, LinearHead, StreamHead
from fedlt.models.index import GROUPS, Group, Index, find_parts, lies_under, resolve_group

__all__ = ["GROUPS", "Group", "Model"]


class Model(nn.Module):
    """A backbone with named heads; the first head added is the one ``forward`` uses.

    Parameters and buffers keep their names once the model is built. Buffers must be updated in
    place. Non-persistent buffers are constants of a module and belong to no group.

    Args:
        backbone: Module ``(B, Ch, H, W) -> (B, S, D)`` with the integer attributes
            ``num_features`` (D) and ``num_streams`` (S).
        num_classes: Number of classes C.
        image_shape: (Ch, H, W) of the images, for plugins that add a network; None where unknown.

    Raises:
        FedltError: If the backbone lacks an attribute, or fewer than two classes are asked for.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        image_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        for attribute in ("num_features", "num_streams"):
            if not isinstance(getattr(backbone, attribute, None), int):
                kind = type(backbone).__name__
                raise FedltError(f"backbone {kind}: needs an integer attribute {attribute!r}")
        if num_classes < 2:
            raise FedltError(f"model: num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes
        self._groups: dict[str, Group] = {"": "shared"}
        self._index: Index | None = None
        self._packed: dict[str, Tensor] = {}  # views of the block in which tensors lie
        self._cosine: tuple[float, bool] | None = None  # what linear heads become: see below
        self._has_stream_heads = False  # a linear head becomes one for every stream
        self._stream_names: tuple[str, ...] = ()  # as declared; (): numbered
        self.image_shape = image_shape
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        self.networks = nn.ModuleDict()  # a plugin's own, outside backbone and heads

    @property
    def num_features(self) -> int:
        """Features per stream, D."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]

    @property
    def num_streams(self) -> int:
        """Streams (experts or tokens) per image, S."""
        return int(self.backbone.num_streams)  # type: ignore[arg-type]

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Names of the S streams, by which they are scored; () for a single stream.

        They are those of :meth:`name_streams`, else ``stream_1`` to ``stream_S``.

        Raises:
            FedltError: If other streams were named than the backbone has.
        """
        count = self.num_streams
        if self._stream_names and len(self._stream_names) != count:
            given = ", ".join(self._stream_names)
            raise FedltError(f"model: the backbone has {count} streams, the names are {given}")
        numbered = tuple(f"stream_{k}" for k in range(1, count + 1))
        return (self._stream_names or numbered) if count > 1 else ()

    def name_streams(self, *names: str) -> None:
        """Declare the names of the streams, in their order.

        Args:
            names: One a stream, each an identifier; no generic head may have one of them.

        Raises:
            FedltError: If a name is no identifier or is there twice, or their number is not that of
                the streams.
        """
        for name in names:
            if not name.isidentifier() or names.count(name) > 1:
                raise FedltError(f"model: stream name {name!r} must be an identifier of its own")
        self._stream_names = names
        _ = self.stream_names  # checks their number

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, S, D)."""
        output: Tensor = self.backbone(x)
        return output

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to the first head's logits (B, S, C).

        Raises:
            FedltError: If the model has no head yet.
        """
        for head in self.heads.values():
            logits: Tensor = head(self.features(x))
            return logits
        raise FedltError("model: has no head; add one with add_head() before calling it")

    def use_cosine_heads(self, scale: float, *, by_stream: bool = False) -> None:
        """Let every :class:`LinearHead` added from now on become a :class:`CosineHead`.

        Args:
            scale: Of the cosines.
            by_stream: Give every stream a head of its own.
        """
        self._cosine = scale, by_stream

    def use_stream_heads(self) -> None:
        """Let every :class:`LinearHead` added from now on become a :class:`StreamHead`."""
        self._has_stream_heads = True

    def _adapted(self, head: nn.Module) -> nn.Module:
        """Return what becomes of a head: a new one where it is of another kind."""
        if not isinstance(head, LinearHead):
            return head
        size = (head.in_features, head.out_features)
        if self._cosine is not None:
            scale, by_stream = self._cosine
            return CosineHead(*size, scale, self.num_streams if by_stream else None)
        return StreamHead(self.num_streams, *size) if self._has_stream_heads else head

    def add_network(self, name: str, network: nn.Module, *, group: Group) -> None:
        """Add a network of a plugin's own, which neither ``features`` nor a head reads.

        Its parameters have names under ``networks.<name>.``. They require no gradient:
        ``Client.train(network=name)`` trains them, and what else trains the model does not.

        Args:
            name: Its name, a new identifier.
            network: The module.
            group: ``shared`` ones are averaged, ``personal`` ones kept, ``fixed`` ones sent once.

        Raises:
            FedltError: If the name is taken or not an identifier.
        """
        if not name.isidentifier() or name in self.networks or hasattr(self.networks, name):
            raise FedltError(f"model: network name {name!r} must be a new identifier")
        self.networks[name] = network.requires_grad_(False).eval()
        self._index = None
        self.set_group(f"networks.{name}", group)

    def add_head(self, name: str, head: nn.Module, *, group: Group | None = None) -> None:
        """Add a head ``(B, S, D) -> (B, S, C)`` and declare its group.

        A :class:`LinearHead` becomes another one where :meth:`use_cosine_heads` or
        :meth:`use_stream_heads` was called.

        Args:
            name: Its name, a new identifier.
            head: The module; ``in_features`` and ``out_features`` are checked where it has them.
            group: Its group; ``None`` means the head's own ``default_group``, or ``shared``.

        Raises:
            FedltError: If the name is taken or not an identifier, or a size does not fit.
        """
        if not name.isidentifier() or name in self.heads or hasattr(self.heads, name):
            raise FedltError(f"model: head name {name!r} must be a new identifier")
        for attribute, size in (
            ("in_features", self.num_features),
            ("out_features", self.num_classes),
        ):
            given = getattr(head, attribute, size)
            if given != size:
                raise FedltError(f"head {name!r}: {attribute} is {given}, the model has {size}")
        self.heads[name] = head = self._adapted(head)
        self._index = None
        default: Group = getattr(head, "default_group", "shared")
        if head.state_dict():
            self.set_group(f"heads.{name}", group or default)

    def set_group(self, prefix: str, group: Group) -> None:
        """Declare the group of every parameter and buffer under a dotted prefix.

        A declaration replaces earlier ones under its prefix; of the rest, the longest prefix of a
        name decides. ``""`` stands for the whole model.
        Parameters that become ``fixed`` no longer require gradients, for good. A tensor that the
        model knows by several names has the group of its first one.

        Raises:
            FedltError: If the group is unknown or nothing lies under the prefix.
        """
        if group not in GROUPS:
            raise FedltError(f"group {group!r} of {prefix!r} is unknown{nearest(group, GROUPS)}")
        self._index = None
        if not any(lies_under(name, prefix) for name in self.state_dict()):
            heads = ("backbone", *(f"heads.{name}" for name in self.heads))
            raise FedltError(f"model: nothing lies under {prefix!r}{nearest(prefix, heads)}")
        kept = {p: g for p, g in self._groups.items() if not lies_under(p, prefix)}
        self._groups = {**kept, prefix: group}
        for part in find_parts(self):
            if part.is_parameter and resolve_group(part.name, self._groups) == "fixed":
                part.tensor.requires_grad_(False)

    def group_of(self, name: str) -> Group:
        """Return the group of a parameter or buffer.

        Raises:
            FedltError: If the model has no tensor of that name.
        """
        groups = self._current().groups
        if name not in groups:
            raise FedltError(f"model: no parameter or buffer {name!r}{nearest(name, groups)}")
        return groups[name]

    def names(self, group: Group | None = None) -> tuple[str, ...]:
        """Return the names of a group (``None``: all), in state_dict order."""
        return self._current().names(group, "all")

    def parameter_names(self, group: Group | None = None) -> tuple[str, ...]:
        """Return the names of a group's parameters, in state_dict order."""
        return self._current().names(group, "parameter")

    def buffer_names(self, group: Group | None = None) -> tuple[str, ...]:
        """Return the names of a group's buffers, integer ones included, in state_dict order."""
        return self._current().names(group, "buffer")

    def integer_names(self, group: Group | None = None) -> tuple[str, ...]:
        """Return the names of buffers that are not floating point, and so are never averaged."""
        return self._current().names(group, "integer")

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of every parameter and buffer by name."""
        return {name: tensor.shape for name, tensor in self.state().items()}

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors by name: detached, not cloned, in state_dict order.

        The tensors are cached and change with the model; the dictionary is the caller's own.
        """
        return dict(self._fresh().live)

    def load(self, tensors: Mapping[str, Tensor], names: Iterable[str] | None = None) -> None:
        """Copy values into the live tensors.

        Args:
            tensors: Sources by name; never written, so they may lie in read-only memory.
            names: What to load; further entries of ``tensors`` are then ignored. ``None`` loads
                everything, and then ``tensors`` must hold exactly the model's names.

        Raises:
            FedltError: If a name is missing or unknown, or a shape or number kind differs. Nothing
                has been written then.
        """
        index = self._fresh()
        wanted = index.order if names is None else tuple(names)
        if names is None and len(tensors) != len(wanted):
            for name in sorted(set(tensors) - set(wanted)):
                raise FedltError(f"model: unknown tensor {name!r}{nearest(name, wanted)}")
        index.copy(tensors, wanted)

    def load_groups(self, tensors: Mapping[Group, Mapping[str, Tensor]]) -> None:
        """Copy values into every tensor of some groups, as :meth:`load` does for each of them."""
        index = self._fresh()
        for group, values in tensors.items():
            index.copy(values, index.names(group, "all"))

    def pack(self) -> None:
        """Lay the shared float32 tensors out in one block, so that one call moves them all.

        Do it once the model is built; tensors replaced later are moved one by one.
        """
        parts = {part.name: part for part in find_parts(self)}
        shared = {name: parts[name].tensor.detach() for name in self.names("shared")}
        layout = Layout.of(shared)
        self._packed = layout.fill(shared)
        for name, view in self._packed.items():
            parts[name].tensor.data = view
        self._index = None

    def layout(self) -> Layout:
        """Return how the shared float32 tensors lie in a block."""
        index = self._current()
        return Layout.of({name: index.live[name] for name in index.names("shared", "all")})

    def _current(self) -> Index:
        if self._index is None:
            self._index = Index(self, self._groups, self._packed)
        return self._index

    def _fresh(self) -> Index:
        if self._index is not None and not self._index.is_live():
            self._index = None
        return self._current()

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - as nn.Module has it
        """Set an attribute; a replaced module invalidates the cached names."""
        super().__setattr__(name, value)
        if isinstance(value, nn.Module):
            self.__dict__["_index"] = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache out of pickles and copies: it points into this model's memory."""
        return {**self.__dict__, "_index": None, "_packed": {}}
