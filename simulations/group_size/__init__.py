"""Which unit to draw, and how much of a user, chosen before anything is spent."""
