"""Turns sums of updates into releases."""
