"""Services of the machine that a run uses: memory, devices, float modes, disk, signals, cache."""
