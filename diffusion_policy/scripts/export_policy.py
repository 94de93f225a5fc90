"""Export the policy of a checkpoint as a folder of config.yaml and model.safetensors.

    python -m diffusion_policy.scripts.export_policy --checkpoint RUN/checkpoints/latest.ckpt \\
        --output data/pretrained/NAME

eval.py accepts the folder in place of the checkpoint, and the policy's actions are the same.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.util.errors import UserError, reports_user_errors


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write the policy of a checkpoint as a folder of two files that run no code: "
        "config.yaml and model.safetensors. The weights are the averaged ones if the run kept them."
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="file written by train.py")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the policy in the folder")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, as for eval.py: policy.return_every_n=2",
    )
    parser.add_argument(
        "--trust-checkpoint",
        dest="trust",
        action="store_true",
        help="with policy.*=...: also build a policy of another package to check the settings. "
        "The checkpoint can then run any code with your rights",
    )
    return parser.parse_intermixed_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    from omegaconf import OmegaConf

    from diffusion_policy.checkpoint.config_changes import change_settings
    from diffusion_policy.checkpoint.policy_folder import WEIGHTS_FILE, save_policy_folder
    from diffusion_policy.checkpoint.saved_policy import SavedPolicy
    from diffusion_policy.checkpoint.trust import needs_trust

    if options.output.exists() and not options.overwrite:
        raise UserError(
            f"{options.output} exists; choose another --output, or replace it with --overwrite"
        )
    saved = SavedPolicy.read(options.checkpoint)
    change_settings(saved.cfg, options.overrides)
    if any(setting.lstrip("+").startswith("policy.") for setting in options.overrides):
        saved.build(trust=options.trust)  # refuse here, not at every reader
    save_policy_folder(options.output, OmegaConf.to_yaml(saved.cfg), saved.weights)
    megabytes = (options.output / WEIGHTS_FILE).stat().st_size / 1e6
    print(
        f"wrote {options.output} ({megabytes:.1f} MB); "
        f"evaluate it with python eval.py --checkpoint {shlex.quote(str(options.output))}"
        + (" --trust-checkpoint" if needs_trust(saved.cfg) else "")
    )


if __name__ == "__main__":
    main()
