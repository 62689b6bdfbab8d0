"""A whole fleet on loopback, as processes of this machine."""
