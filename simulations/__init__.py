"""The feddp command, the demo, and everything that runs in one process."""
