"""Flower: its records and messages, the server half and the client half as Flower apps."""
