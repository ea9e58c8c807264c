"""Files that a run leaves on disk: directory, checkpoints, personal states, evaluations."""
