"""Tests that need neither a network nor a GPU."""
