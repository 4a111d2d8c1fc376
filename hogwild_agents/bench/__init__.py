"""Measures the engine and the team, for `hogwild bench` and `python -m tests.gpu`.

- `shapes`: models of well-known shapes with random weights.
- `contenders`: our engine and plain transformers, each ready to run decode passes.
- `engine`: the time of a pass of every contender, and of attention alone.
- `profiling`: where the time of a pass goes.
- `team`: what a session costs besides its forward passes.
- `timing`: clocks for a device, and its memory bandwidth.
"""
