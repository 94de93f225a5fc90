"""Turn a published Diffusion Policy checkpoint of PushT into one that eval.py takes.

``python -m diffusion_policy.scripts.import_checkpoint IN.ckpt OUT.ckpt --allow-pickle``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.interop.inert_pickle import load_inert, plain
from diffusion_policy.interop.published_config import our_config
from diffusion_policy.interop.published_weights import load_published_weights
from diffusion_policy.util.errors import UserError, reports_user_errors


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="published checkpoint (.ckpt)")
    parser.add_argument("target", type=Path, help="checkpoint to write (.ckpt)")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read the file although it is a pickle, made to run code of its maker's choice",
    )
    options = parser.parse_args(arguments)
    if options.target.exists():
        raise UserError(f"{options.target} exists; choose another name or delete it")
    if not options.allow_pickle:
        raise UserError(
            f"{options.source} is to be read as a pickle, which can run code of its maker with "
            "your rights; only tensors and plain values are built here, but add --allow-pickle "
            "only if you trust whoever made it"
        )
    payload = load_inert(options.source)
    weights = _weights(payload, options.source)
    cfg, remarks = our_config(plain(payload.get("cfg")))
    policy = hydra.utils.instantiate(cfg.policy)
    load_published_weights(policy, weights)
    state = {"model": policy.state_dict(), "ema_model": None}
    save_checkpoint(options.target, OmegaConf.to_yaml(cfg, resolve=True), state)
    for remark in remarks:
        print(f"note: {remark}")
    print(f"wrote {options.target}; evaluate it with python eval.py --checkpoint {options.target}")


def _weights(payload: Any, source: Path) -> Any:
    """The averaged weights where the run kept them."""
    states = payload.get("state_dicts") if isinstance(payload, dict) else None
    if not isinstance(states, dict):
        raise UserError(f"{source} holds no state_dicts; it is no checkpoint of Diffusion Policy")
    return states.get("ema_model") or states.get("model")


if __name__ == "__main__":
    main()
