"""Local training of many users in shared passes over one frozen base."""
