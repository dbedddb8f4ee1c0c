"""What packets mean."""
