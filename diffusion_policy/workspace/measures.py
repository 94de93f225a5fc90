"""What is measured of a policy without a simulator: losses, and errors of predicted actions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.batch_order import BatchOrder
from diffusion_policy.model.common.batch_random import batch_randomness
from diffusion_policy.model.common.inference import undisturbed
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.util import distributed
from diffusion_policy.workspace.learner import named_values, to_device


def validation_losses(
    policy: BasePolicy, loader: DataLoader, order: BatchOrder, device: torch.device, seed: int
) -> dict[str, float]:
    """Means over the held-out samples, with the same random draws every time.

    Args:
        order: that of ``loader``.
        seed: of the draws.

    Returns:
        ``val_loss``, and what compute_loss returns beside the loss under ``val_<name>``.
    """
    sums: dict[str, float] = {"loss": 0.0}
    n_rows = 0.0
    with undisturbed(policy, device, seed):
        for i, batch in enumerate(loader):
            part = order.part(i)
            with batch_randomness(part.start, part.stop, part.total, part.seed):
                loss, others = policy.compute_loss(to_device(batch, device))
            rows = part.share * part.total
            for name, value in {"loss": loss, **named_values(others, device)}.items():
                sums[name] = sums.get(name, 0.0) + value.item() * part.share * part.total
            n_rows += rows
    *totals, n_rows = distributed.total([*sums.values(), n_rows])
    return {f"val_{name}": total / n_rows for name, total in zip(sums, totals, strict=True)}


def action_error(
    policy: BasePolicy, dataset: BaseDataset, order: BatchOrder, device: torch.device, seed: int
) -> float:
    """Mean squared error, raw units squared, of actions predicted for a training batch.

    Args:
        order: of ``dataset``; it is moved to its first batch.
    """
    order.seek(epoch=0)
    batch = to_device(dataset.__getitems__(next(iter(order))), device)
    part = order.part(0)
    ids = range(part.start, part.stop)  # each draws by its number in the whole batch
    with undisturbed(policy, device, seed), acting_for(policy, batch["embodiment"]):
        policy.reset()
        predicted = policy.predict_action(batch["obs"], env_ids=ids)["action_pred"]
        policy.reset()
    rows = [policy.window.action_offsets.index(t) for t in policy.action_pred_offsets]
    error = (predicted - batch["action"][:, rows]).square().mean(-1)
    error = error[~batch["action_is_pad"][:, rows]]
    counts = part.share > 0
    error_sum, n_steps = distributed.total([counts * error.sum().item(), counts * len(error)])
    return error_sum / n_steps


@contextmanager
def acting_for(policy: BasePolicy, embodiment: Tensor) -> Iterator[None]:
    """In the block, the policy acts for ``embodiment`` (B,), one for each row."""
    before, policy.embodiment = policy.embodiment, embodiment
    try:
        yield
    finally:
        policy.embodiment = before
