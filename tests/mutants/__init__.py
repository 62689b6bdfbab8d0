"""Seeded bugs of the privacy core, each with the test that must notice; `python -m mutants`."""
