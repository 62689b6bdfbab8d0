"""What travels between the server app and the nodes, and how it is protected."""
