"""Blocks of keys and values, the memory behind them, and what moves them in and out."""
