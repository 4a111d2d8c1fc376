"""The key-value cache: its memory, the blocks in it, the prefix cache and offloading."""
