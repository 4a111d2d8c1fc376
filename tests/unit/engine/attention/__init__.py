"""Tests of the engine's backends."""
