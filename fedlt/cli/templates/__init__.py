"""What ``fedlt new`` writes: whole files that run as they are, with names to be replaced."""
