"""What looks at clips: a recogniser, a segmenter, trackers and the laws they check."""
