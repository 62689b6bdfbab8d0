"""What an adapter gives away about its users."""
