"""Runs as folders, and what is drawn from them: overlays, legends, contact sheets, exports (no torch)."""
