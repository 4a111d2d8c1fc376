"""The self-check: what is measured of a model on load, and what is compared."""
