"""A run in one process, and what a person sees of it."""
