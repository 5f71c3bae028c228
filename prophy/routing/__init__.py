"""What the experts did and what they are told to do: traces, token targets, steering, schedules (no torch)."""
