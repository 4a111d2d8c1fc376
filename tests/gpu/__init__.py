"""What only a CUDA card can show: `python -m tests.gpu` checks and times everything in one run."""
