"""Hydra configs: ``train.yaml`` is the base, ``train_<method>_<task>.yaml`` are named runs."""
