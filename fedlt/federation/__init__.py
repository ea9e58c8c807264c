"""The three parties of a run, and what each party may know.

    ServerView     the server: configuration, method, shapes, and class counts that the file allows
    ClientShares   the clients of one process: a share of the training images for each client
    Observer       simulations only: all data, scoring, aimed faults, diagnostics

The driver makes the parties of a simulation and hands each its own part. Strategy, adapter and
server app work with the view, worker and client with shares. A deployment has no observer.
"""

from fedlt.federation.observer import Observer
from fedlt.federation.parties import Parties, prepare_parties
from fedlt.federation.share import ClientShare, ClientShares
from fedlt.federation.terms import Terms
from fedlt.federation.view import ServerView

__all__ = [
    "ClientShare",
    "ClientShares",
    "Observer",
    "Parties",
    "ServerView",
    "Terms",
    "prepare_parties",
]
