"""How attention over blocks is computed: one module per backend."""
