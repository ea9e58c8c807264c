"""Templates of ``fedlt new``: complete files that run unchanged, with names to be replaced."""
