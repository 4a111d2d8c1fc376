"""Who runs in the next forward pass, and what becomes of the outcome."""
