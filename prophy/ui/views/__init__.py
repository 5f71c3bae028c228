"""What shows a run: the routing over the playing video, comparisons, plots."""
