"""Tests of the pocket model."""
