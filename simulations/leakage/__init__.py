"""What an adapter leaks about its users."""
