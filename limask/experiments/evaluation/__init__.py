"""Trained agents, frozen: how they hold under faults, and what was hidden from them."""
