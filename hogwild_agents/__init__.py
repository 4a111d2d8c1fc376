"""hogwild_agents."""
