"""From checkpoints to R(g) and D(ḡ) with their guarantees."""
