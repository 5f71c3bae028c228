"""Where the parts of a pipeline lie, and what that costs: memory profiles, offloading, the plan."""
