"""Import a published Diffusion Policy checkpoint: a pickle of weights and config."""

from __future__ import annotations

from pathlib import Path

import hydra

from diffusion_policy.interop.diffusion_policy_config import our_config
from diffusion_policy.interop.diffusion_policy_weights import load_published_weights
from diffusion_policy.interop.imported_policy import ImportedPolicy
from diffusion_policy.interop.inert_pickle import load_inert, plain
from diffusion_policy.util.errors import UserError


def import_diffusion_policy(source: Path) -> ImportedPolicy:
    """The policy of a checkpoint (.ckpt), with its averaged weights where the file holds them.

    The pickle is read without running what it names.

    Raises:
        UserError: the file cannot be read, is of another program, or has a setting or an entry
            that has no counterpart here.
    """
    payload = load_inert(source)
    states = payload.get("state_dicts") if isinstance(payload, dict) else None
    if not isinstance(states, dict):
        raise UserError(
            f"{source} holds no state_dicts, so another program wrote it; give a checkpoint of "
            "Diffusion Policy"
        )
    cfg, remarks = our_config(plain(payload.get("cfg")))
    policy = hydra.utils.instantiate(cfg.policy)
    load_published_weights(policy, states.get("ema_model") or states.get("model"))
    return ImportedPolicy(cfg, policy, remarks)
