"""ProPhy: token-level physics for text-to-video diffusion transformers (arXiv 2512.05564)."""
