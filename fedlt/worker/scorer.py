"""Score generic and personal models on a piece of the test set, by the observer's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedlt.data.augment import normalize
from fedlt.evaluation.counting import client_hits, fused_logits, score_client, score_generic
from fedlt.evaluation.local_test import draw_images
from fedlt.evaluation.request import ClientRequest, ScoreRequest, Scores
from fedlt.evaluation.scores import ClientHits
from fedlt.federation.evaluator import touches_backbone
from fedlt.machine.maps import placed
from fedlt.machine.memory import as_tensor
from fedlt.strategy import HeadFunction
from fedlt.worker.model_loader import ModelLoader
from fedlt.worker.worker import Worker

if TYPE_CHECKING:
    from fedlt.federation import ClientShares, Observer
    from fedlt.models import Model


class Host:
    """A process of a simulation: a worker, and beside it the observer's scorer.

    Both use one scratch model. The worker holds no scorer, so client tasks cannot reach the test
    set or the observer.
    """

    def __init__(self, shares: ClientShares, observer: Observer) -> None:
        self.worker = Worker(shares)
        self.scorer = Scorer(observer, self.worker.model)

    def score(self, request: ScoreRequest) -> Scores:
        """Score models on a piece of the test set, personal ones after `adapt` and `refresh`."""
        return self.scorer.score(self.worker.finished(request))

    def predict(self, request: ScoreRequest) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Return the classes (B,) of the primary heads: the generic model's, each client's."""
        return self.scorer.predict(self.worker.finished(request))


class Scorer:
    """Scores models on the observer's test images with one scratch model, given as it was built."""

    def __init__(self, observer: Observer, model: Model) -> None:
        data, config = observer.data, observer.config
        self.observer, self.model = observer, model
        device = next(model.parameters()).device
        features = observer.eval_features
        self.images = placed(data.eval_images if features is None else features, device)
        self._labels = as_tensor(data.eval_labels).to(device)
        mean, std = (data.mean, data.std) if features is None else ((0.0,), (1.0,))
        self._mean = torch.as_tensor(mean, device=device)
        self._std = torch.as_tensor(std, device=device)
        self.loader = ModelLoader(observer.strategy, model)
        self._view = observer.local_test
        self._block = config.evaluate.batch_size

    def score(self, request: ScoreRequest) -> Scores:
        """Answer one request. The backbone runs once, and again for each client with an own one.

        A method without a generic model has no generic scores.
        """
        request = self.loader.placed(request)
        heads = self.loader.load_generic(request)
        asked = request.generic or any(client.base for client in request.clients)
        needs_generic = asked and bool(heads)
        features = self._features(request) if needs_generic else None
        generic = None
        if request.generic and features is not None:
            generic = score_generic(
                features,
                self._labels[request.start : request.stop],
                heads,
                self.observer.plugin.predict,
                block_size=self._block,
                streams=self.model.stream_names,
                keep_logits=request.keep_logits,
            )
        bases = {} if features is None else self._bases(features, request, heads)
        own = {client.cid: self._own(features, request, client) for client in request.clients}
        steps = {client.cid: client.steps for client in request.clients}
        return Scores(generic, {cid: (own[cid], bases.get(cid)) for cid in own}, steps)

    def load_generic(self, request: ScoreRequest) -> dict[str, HeadFunction]:
        """Load the generic model into the scratch model and return its heads; {}: there is none."""
        return self.loader.load_generic(self.loader.placed(request))

    @torch.no_grad()
    def predict(self, request: ScoreRequest) -> tuple[Tensor | None, dict[int, Tensor]]:
        """Return the classes (B,) of the primary heads: the generic model's, each client's."""
        request = self.loader.placed(request)
        heads = self.loader.load_generic(request)
        features = self._features(request) if heads else None
        own = {}
        for client in request.clients:
            with self._own_model(features, request, client) as (seen, own_heads):
                own[client.cid] = self._classes(seen, own_heads)
        return None if features is None else self._classes(features, heads), own

    def _classes(self, features: Tensor, heads: Mapping[str, HeadFunction]) -> Tensor:
        head, predict = next(iter(heads.values())), self.observer.plugin.predict
        return fused_logits(features, head, predict, block_size=self._block).argmax(dim=1).cpu()

    def _bases(
        self, features: Tensor, request: ScoreRequest, heads: Mapping[str, HeadFunction]
    ) -> dict[int, ClientHits]:
        """Return the primary generic head's hits under every client's masks, by one product."""
        name, head = next(iter(heads.items()))
        predict = self.observer.plugin.predict
        logits = {name: fused_logits(features, head, predict, block_size=self._block)}
        labels = self._labels[request.start : request.stop]
        return {
            client.cid: client_hits(logits, labels, **self._view_of(request, client.cid))
            for client in request.clients
            if client.base
        }

    @torch.no_grad()
    def _features(self, request: ScoreRequest, starts: Sequence[int] = ()) -> Tensor:
        """Return the features (B, S, D) of the request's images, in blocks of a fixed size.

        Args:
            request: The request.
            starts: First images of the blocks that are needed; (): all blocks.
        """
        self.model.eval()
        starts, stop = starts or self._starts(request), request.stop
        blocks = (self.images[start : min(start + self._block, stop)] for start in starts)
        return torch.cat(
            [self.model.features(normalize(block, self._mean, self._std)) for block in blocks]
        )

    def _own(
        self, features: Tensor | None, request: ScoreRequest, client: ClientRequest
    ) -> ClientHits | None:
        """Return the hits of a client's own heads; the scratch model stays as before."""
        if client.personal is None:
            return None
        if self._view.scheme == "own":
            return self._on_own_images(features, request, client)
        with self._own_model(features, request, client) as (seen, heads):
            return score_client(
                seen,
                self._labels[request.start : request.stop],
                heads,
                self.observer.plugin.predict,
                block_size=self._block,
                **self._view_of(request, client.cid),
            )

    @contextmanager
    def _own_model(
        self, features: Tensor | None, request: ScoreRequest, client: ClientRequest
    ) -> Iterator[tuple[Tensor, dict[str, HeadFunction]]]:
        """Load a client's model; return features of the request's images, and the heads."""
        with self.loader.own_model(request, client) as (replaced, heads):
            if features is None or touches_backbone(replaced):
                features = self._features(request)
            yield features, heads

    def _starts(self, request: ScoreRequest) -> range:
        """Return the first images of the request's blocks."""
        return range(request.start, request.stop, self._block)

    def _on_own_images(
        self, features: Tensor | None, request: ScoreRequest, client: ClientRequest
    ) -> ClientHits:
        """Return the hits of a client's own heads, from the blocks that hold its own images only.

        The blocks are those of the generic model, so equal models have equal hits.
        """
        rows = self.observer.own_rows(client.cid)
        rows = rows[(rows >= request.start) & (rows < request.stop)]
        starts = [s for s in self._starts(request) if _between(rows, s, s + self._block)]
        spans = [range(s, min(s + self._block, request.stop)) for s in starts]
        held = np.concatenate([np.empty(0, np.int64), *map(np.asarray, spans)])
        with self.loader.own_model(request, client) as (replaced, heads):
            if not starts:
                return ClientHits.nothing(tuple(heads), self.observer.data.num_classes)
            if features is None or touches_backbone(replaced):
                seen = self._features(request, starts)
            else:
                seen = features[torch.as_tensor(held - request.start, device=features.device)]
            return score_client(
                seen,
                self._labels[torch.as_tensor(held, device=self._labels.device)],
                heads,
                self.observer.plugin.predict,
                class_counts=self.observer.data.client_counts[client.cid],
                block_size=self._block,
                drawn=np.searchsorted(held, rows),
            )

    def _view_of(self, request: ScoreRequest, cid: int) -> dict[str, Any]:
        """Return the classes and images of the request that count for a client."""
        return {
            "class_counts": self.observer.data.client_counts[cid],
            "test_mask": self._view.test_mask(cid),
            "drawn": self._drawn(request, cid),
        }

    def _drawn(self, request: ScoreRequest, cid: int) -> np.ndarray | None:
        """Return the images of the request that count for a client; None: all of them."""
        own = self.observer.own_rows(cid) if self._view.scheme == "own" else None
        drawn = draw_images(self._view, cid, self.observer.data.eval_labels) if own is None else own
        if drawn is None:
            return None
        return drawn[(drawn >= request.start) & (drawn < request.stop)] - request.start


def _between(rows: np.ndarray, start: int, stop: int) -> bool:
    """Return True if one of the ascending rows is in ``start`` .. ``stop`` - 1."""
    return bool(np.searchsorted(rows, start) < np.searchsorted(rows, stop))
