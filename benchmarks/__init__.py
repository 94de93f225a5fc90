"""How fast the project is, and whether what is fast is still right: ``python -m benchmarks``."""
