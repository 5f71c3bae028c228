"""Datasets and caches."""
