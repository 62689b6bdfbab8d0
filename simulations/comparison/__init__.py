"""Compares the cost of each way of protecting users, at equal promise and compute."""
