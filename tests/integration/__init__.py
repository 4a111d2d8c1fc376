"""Tests of many parts together, on the pocket model."""
