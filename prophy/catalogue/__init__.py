"""Facts of published models, read before any weights are: configurations, clip sizes, defaults (no torch)."""
