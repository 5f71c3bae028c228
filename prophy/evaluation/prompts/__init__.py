"""Prompts that evaluations share, and the pictures made from the fixed ones."""
