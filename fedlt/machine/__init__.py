"""The machine under a run: memory, devices, floating-point modes, disk, signals, cache."""
