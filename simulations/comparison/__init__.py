"""What each way of protecting users costs, at one promise and one compute."""
