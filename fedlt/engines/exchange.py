"""Messages to nodes and back over any Flower grid. A node that fails never raises here."""

from __future__ import annotations

import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid

_FIRST, _LAST, _GROWTH = 0.02, 1.0, 1.5  # seconds between two looks for replies


def exchange(grid: Grid, messages: Sequence[Message], *, timeout: float) -> list[Message | None]:
    """Send messages and return the reply to each, in the order of the messages.

    The reply may be an error of the node or of Flower. It is None where the message could not be
    sent, or no reply came in time. The second of two replies to a message is ignored, and so are
    replies to earlier messages.

    Args:
        grid: The grid.
        messages: The messages; each goes to one node.
        timeout: Seconds to wait for replies.
    """
    pushed = {text for text in grid.push_messages(messages) if text}
    places = {m.metadata.message_id: place for place, m in enumerate(messages)}
    waiting = pushed & set(places)
    replies: list[Message | None] = [None] * len(messages)
    deadline, pause = time.monotonic() + timeout, _FIRST
    while waiting:
        for reply in grid.pull_messages(waiting):
            answered = reply.metadata.reply_to_message_id
            if answered in waiting:
                replies[places[answered]] = reply
                waiting.discard(answered)
        left = deadline - time.monotonic()
        if not waiting or left <= 0:
            break
        time.sleep(min(pause, left))
        pause = min(_LAST, pause * _GROWTH)
    return replies


def reason_of(reply: Message | None) -> str:
    """Return in words why a reply cannot be used; "" if it can."""
    if reply is None:
        return "no answer in time"
    if reply.has_error():
        return (reply.error.reason or f"error {reply.error.code}").strip().splitlines()[-1]
    facts = reply.content.config_records.get("facts")
    return "" if facts is None else str(facts.get("refused", ""))
