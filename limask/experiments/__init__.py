"""Experiments: launching trainings, reading what hosts wrote, metrics, plots."""
