"""fedlt: a federated long-tail learning simulator. Start reading at ``fedlt.simulate``."""
