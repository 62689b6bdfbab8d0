"""Audits: canary users in the real pipeline bound epsilon from below."""
