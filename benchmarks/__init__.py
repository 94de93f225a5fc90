"""Measure the speed of the project and check the results: ``python -m benchmarks``."""
