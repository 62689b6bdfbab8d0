"""What both sides must agree on; imports neither server nor client."""
