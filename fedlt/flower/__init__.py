"""The only place that touches Flower: records, the server adapter, the two apps."""
