"""Opening a model with its branch, and making clips with it."""
