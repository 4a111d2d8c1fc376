"""Which jobs take part in the next forward pass, and what happens with its results."""
