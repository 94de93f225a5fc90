"""What a dataset yields and a policy learns from."""

from __future__ import annotations

from typing import Any

Batch = dict[str, Any]
"""One batch of B samples in raw units, as numpy arrays in transforms and as tensors in policies:

=================  =======================================  ======================================
key                holds                                    type
=================  =======================================  ======================================
``obs``            ``{key: (B, To, *shape)}``               rgb uint8, depth and low_dim float32
                   ``{key: list of B strings}``             text, at the current step
``action``         ``(B, T, Da)``                           float32
``action_is_pad``  ``(B, T)``, True outside the episode     bool
``embodiment``     ``(B,)`` indices into                    int64
                   ``dataset.embodiments``
=================  =======================================  ======================================
"""
