"""The one line of a worker whose set-up fails, such as on a node without the files of the data."""

from __future__ import annotations

import pytest
import ray
from ray.exceptions import RayTaskError

from fedlt.engines.ray_pool import ActorPool
from fedlt.errors import FedltError


@pytest.mark.parametrize("cause", [FedltError("data: a.npy on node-2 is missing"), KeyError("x")])
def test_a_failed_set_up_shows_its_own_line_and_a_mistake_its_traceback(monkeypatch, cause):
    def get(reference):
        raise RayTaskError("setup", "Traceback (most recent call last): ...", cause)

    monkeypatch.setattr(ray, "get", get)
    nothing = {"count_places": lambda: 1, "check": lambda: None, "is_remote": True}
    pool = ActorPool(lambda: (object(), object()), 1, **nothing)
    wanted = FedltError if isinstance(cause, FedltError) else RayTaskError
    with pytest.raises(wanted) as caught:
        pool.welcome(pool.members[0])
    assert (str(caught.value) == "data: a.npy on node-2 is missing") == (wanted is FedltError)
