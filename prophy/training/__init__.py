"""Training: of the embedded model from scratch, and of a physical branch on a backbone."""
