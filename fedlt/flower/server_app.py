"""The server half as a Flower ``ServerApp``."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp


def make_server_app(main: Callable[[Grid, Context], None]) -> ServerApp:
    """Return a server app whose main function is the round loop ``main``."""
    app = ServerApp()
    app.main()(main)
    return app
