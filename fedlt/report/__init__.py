"""What a person sees: tables, progress, and drawings of partitions."""
