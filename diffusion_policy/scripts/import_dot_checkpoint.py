"""Turn a public DOT checkpoint (safetensors) into one that eval.py takes.

``python -m diffusion_policy.scripts.import_dot_checkpoint IN.safetensors OUT.ckpt
--config-name train_dot_pusht_lerobot [policy.inference_horizon=20 ...]``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.interop.dot import load_dot_checkpoint
from diffusion_policy.util.errors import UserError, reports_user_errors


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="model.safetensors of the public checkpoint")
    parser.add_argument("target", type=Path, help="checkpoint to write (.ckpt)")
    parser.add_argument("--config-name", default="train_dot_pusht_lerobot")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of that config")
    options = parser.parse_intermixed_args(arguments)
    if options.target.exists():
        raise UserError(f"{options.target} exists; choose another name or delete it")
    with hydra.initialize_config_module("diffusion_policy.config", version_base="1.3"):
        cfg = hydra.compose(options.config_name, overrides=options.overrides)
    if "backbone_weights" in cfg.policy:
        cfg.policy.backbone_weights = None  # the file brings its own
    policy = hydra.utils.instantiate(cfg.policy)
    load_dot_checkpoint(policy, options.source)
    state = {"model": policy.state_dict(), "ema_model": None}
    save_checkpoint(options.target, OmegaConf.to_yaml(cfg, resolve=True), state)
    print(f"wrote {options.target}; evaluate it with python eval.py --checkpoint {options.target}")


if __name__ == "__main__":
    main()
