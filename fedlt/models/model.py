"""``Model``: one backbone, named heads, and the group of every parameter and buffer.

The group of a tensor says where the tensor lives: ``shared`` tensors travel and are averaged,
``personal`` tensors stay with their client, ``fixed`` tensors are never trained nor averaged.

A client plugin may add networks, such as a teacher. Their tensors have groups like all others, but
only the plugin trains them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedlt.errors import FedltError, nearest
from fedlt.machine.memory import Layout
from fedlt.models.heads import CosineHead, LinearHead, StreamHead
from fedlt.models.index import (
    GROUPS,
    Group,
    Index,
    find_parts,
    frozen_parts,
    lies_under,
    resolve_group,
)  # fmt: skip

__all__ = ["GROUPS", "Group", "Model"]


class Model(nn.Module):
    """A backbone with named heads; ``forward`` uses the head that was added first.

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
        self._cosine: tuple[float, bool] | None = None  # arguments of use_cosine_heads()
        self._has_stream_heads = False  # True after use_stream_heads()
        self._stream_names: tuple[str, ...] = ()  # as declared; (): numbered
        self.filled: tuple[str, ...] = ()  # tensors whose first values come from `model.weights`
        self.reads_features = False  # images may be features (B, S * D, 1, 1): features() says how
        self.image_shape = image_shape
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        self.networks = nn.ModuleDict()  # networks of the client plugin, see add_network()

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
        """Names of the S streams, under which evaluation scores each stream; () for one stream.

        The names come from :meth:`name_streams`; the default is ``stream_1`` to ``stream_S``.

        Raises:
            FedltError: If the number of declared names is not the number of streams.
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
            names: One identifier per stream; heads of the global model must have other names.

        Raises:
            FedltError: If a name is no identifier or stands twice, or the number of names is not
                the number of streams.
        """
        for name in names:
            if not name.isidentifier() or names.count(name) > 1:
                raise FedltError(f"model: stream name {name!r} must be an identifier of its own")
        self._stream_names = names
        _ = self.stream_names  # checks their number

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, Ch, H, W) to features (B, S, D).

        With ``reads_features``, values of the shape (B, S * D, 1, 1) are features and passed on.
        """
        if self.are_features(x):
            return x.view(-1, self.num_streams, self.num_features)
        output: Tensor = self.backbone(x)
        return output

    def are_features(self, x: Tensor) -> bool:
        """Return True if values (B, ...) are features already, see :meth:`features`."""
        size = self.num_streams * self.num_features
        return self.reads_features and tuple(x.shape[1:]) == (size, 1, 1)

    def frozen_parts(self) -> tuple[nn.Module, ...]:
        """Return the largest parts of the backbone whose tensors are all ``fixed``."""
        index = self._current()
        if index.frozen is None:
            index.frozen = tuple(frozen_parts(self.backbone, "backbone", index.groups))
        return index.frozen

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
            scale: Factor of the cosines.
            by_stream: Whether every stream gets class vectors of its own.
        """
        self._cosine = scale, by_stream

    def use_stream_heads(self) -> None:
        """Let every :class:`LinearHead` added from now on become a :class:`StreamHead`."""
        self._has_stream_heads = True

    def _adapted(self, head: nn.Module) -> nn.Module:
        """Return the head to add: a linear head is replaced if another kind was asked for."""
        if not isinstance(head, LinearHead):
            return head
        size = (head.in_features, head.out_features)
        if self._cosine is not None:
            scale, by_stream = self._cosine
            return CosineHead(*size, scale, self.num_streams if by_stream else None)
        return StreamHead(self.num_streams, *size) if self._has_stream_heads else head

    def add_network(self, name: str, network: nn.Module, *, group: Group) -> None:
        """Add a network of a client plugin, such as a teacher; features and heads ignore it.

        The network's tensors have names under ``networks.<name>.``. Its parameters require no
        gradient: only ``Client.train(network=name)`` trains them.

        Args:
            name: Name of the network, a new identifier.
            network: The module.
            group: ``shared`` networks are averaged, ``personal`` kept, ``fixed`` sent once.

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

        A :class:`LinearHead` is replaced by another kind of head after :meth:`use_cosine_heads`
        or :meth:`use_stream_heads`.

        Args:
            name: Name of the head, a new identifier.
            head: The module; its ``in_features`` and ``out_features`` are checked if present.
            group: Group of the head; ``None``: the head's ``default_group``, else ``shared``.

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

        A declaration replaces earlier ones under its prefix. Of all declared prefixes of a name,
        the longest decides. ``""`` stands for the whole model.
        Parameters that become ``fixed`` stop requiring gradients for good. A tensor with several
        names (tied weights) has the group of its first name.

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
        """Return the names of a group's tensors (``None``: all groups), in state_dict order."""
        return self._current().names(group, "all")

    def parameter_names(self, group: Group | None = None) -> tuple[str, ...]:
        """Return the names of a group's parameters, in state_dict order."""
        return self._current().names(group, "parameter")

    def buffer_names(self, group: Group | None = None) -> tuple[str, ...]:
        """Return the names of a group's buffers, integer ones included, in state_dict order."""
        return self._current().names(group, "buffer")

    def integer_names(self, group: Group | None = None) -> tuple[str, ...]:
        """Return the names of a group's integer buffers, which are never averaged."""
        return self._current().names(group, "integer")

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of every parameter and buffer by name."""
        return {name: tensor.shape for name, tensor in self.state().items()}

    def state(self) -> dict[str, Tensor]:
        """Return the live tensors by name: detached, not cloned, in state_dict order.

        The tensors are cached and change with the model; the caller may change the dictionary.
        """
        return dict(self._fresh().live)

    def load(self, tensors: Mapping[str, Tensor], names: Iterable[str] | None = None) -> None:
        """Copy values into the live tensors.

        Args:
            tensors: Sources by name; never written, so they may lie in read-only memory.
            names: Names to load; other entries of ``tensors`` are ignored. ``None`` loads the
                whole model, and ``tensors`` must then hold exactly the model's names.

        Raises:
            FedltError: If a name is missing or unknown, or a shape or number kind differs. The
                model is then unchanged.
        """
        index = self._fresh()
        wanted = index.order if names is None else tuple(names)
        if names is None and len(tensors) != len(wanted):
            for name in sorted(set(tensors) - set(wanted)):
                raise FedltError(f"model: unknown tensor {name!r}{nearest(name, wanted)}")
        index.copy(tensors, wanted)

    def load_groups(self, tensors: Mapping[Group, Mapping[str, Tensor]]) -> None:
        """Copy values into all tensors of the given groups, with the checks of :meth:`load`."""
        index = self._fresh()
        for group, values in tensors.items():
            index.copy(values, index.names(group, "all"))

    def pack(self) -> None:
        """Move the shared float32 tensors into one block of memory, so that one call copies all.

        Call this method when the model is complete; tensors replaced later are copied singly.
        """
        parts = {part.name: part for part in find_parts(self)}
        shared = {name: parts[name].tensor.detach() for name in self.names("shared")}
        layout = Layout.of(shared)
        self._packed = layout.fill(shared)
        for name, view in self._packed.items():
            parts[name].tensor.data = view
        self._index = None

    def layout(self) -> Layout:
        """Return the layout of the shared float32 tensors in one block: order and offsets."""
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
        """Return the state without the caches, whose pointers are valid in this model only."""
        return {**self.__dict__, "_index": None, "_packed": {}}
