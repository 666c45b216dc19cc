"""Side by side with peers in one run, beside the machine's own limits; `python -m benchmarks` runs all."""
