"""The parts of ``python benchmarks/gpu.py``: one module for each kind of measurement, and what they share."""
