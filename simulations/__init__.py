"""The composition root: the feddp command, the demo and everything that runs in one process."""
