"""A run in one process, and its output."""
