"""Tests of how the pocket model is trained."""
