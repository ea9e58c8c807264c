"""Reports for readers: pages, tables, and pictures of runs and partitions."""
