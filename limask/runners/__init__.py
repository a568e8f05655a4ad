"""Runners that limask brings to a host, host-blind."""
