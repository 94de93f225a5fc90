"""All benchmarks: importing the subjects registers their cases."""

from benchmarks import data, growth, inference, machine, pusht, startup, training

_MODULES = (machine, pusht, data, training, inference, startup, growth)
SUBJECTS = [module.__name__.rpartition(".")[2] for module in _MODULES]
"""What the names of cases begin with, in the order of the table."""
