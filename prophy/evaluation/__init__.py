"""Evaluation: does the model show the physics that was asked for, and does the routing find it."""
