"""One worker process: local training, scoring, diagnostics."""
