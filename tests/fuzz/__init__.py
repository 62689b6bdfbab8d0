"""Random, structure-aware fuzzing of every parser; `python -m fuzz` runs it."""
