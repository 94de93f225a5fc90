"""Group normalisation in place of batch normalisation.

The running statistics of batch norm do not fit weights that are averaged over training. Group norm
has no such statistics.
"""

from __future__ import annotations

from torch import nn

CHANNELS_PER_GROUP = 16


def replace_batch_norm(module: nn.Module) -> None:
    """Replace every BatchNorm2d below ``module`` by a new GroupNorm, in place.

    A layer of C channels gets C // 16 groups; C is a multiple of 16 in every ResNet.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            channels = child.num_features
            setattr(module, name, nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels))
        else:
            replace_batch_norm(child)
