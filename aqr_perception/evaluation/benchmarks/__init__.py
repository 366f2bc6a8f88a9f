"""Published robustness benchmarks."""
