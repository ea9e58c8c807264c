"""The parties of a federation, who takes part in a round, and what goes wrong."""
