"""What visitors operate: inputs, jobs, the list of runs, the steering panel."""
