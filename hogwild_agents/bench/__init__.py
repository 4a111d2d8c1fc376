"""What times the engine and the team."""
