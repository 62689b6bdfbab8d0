"""Users, their rows, and where both come from."""
