"""A model proves itself on load: what it measures, and what it compares."""
