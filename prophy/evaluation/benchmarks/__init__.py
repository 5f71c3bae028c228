"""Public benchmarks: VideoPhy2 and VBench."""
