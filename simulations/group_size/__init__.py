"""Chooses the sampled unit and the examples per user before anything is spent."""
