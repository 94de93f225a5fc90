"""All benchmarks: importing the subjects registers their cases."""

from benchmarks import data, growth, inference, machine, pusht, startup, training

SUBJECTS = {
    module.__name__.rpartition(".")[2]: module
    for module in (machine, pusht, data, training, inference, startup, growth)
}
