"""All benchmarks; importing the subjects registers their cases."""

from benchmarks import data, growth, inference, machine, pusht, startup, training, videos

_MODULES = (machine, pusht, data, videos, training, inference, startup, growth)
SUBJECTS = [module.__name__.rpartition(".")[2] for module in _MODULES]
"""First parts of the case names, in the order of the table."""
