"""How a node answers: in a client app's process, or as a resident node."""
