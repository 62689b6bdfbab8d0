"""Six changes that a newcomer may want to make, each of them made and shown to work."""
