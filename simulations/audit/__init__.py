"""Canary users in the real pipeline, and what their traces say about epsilon."""
