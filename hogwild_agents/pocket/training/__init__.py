"""How the pocket model is made: lessons, teacher, packing, training."""
