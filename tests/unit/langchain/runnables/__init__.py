"""Tests of the runnables."""
