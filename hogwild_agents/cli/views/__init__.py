"""How `hogwild solve` and `hogwild chat` show a session."""
