"""Turn a published checkpoint of another project into one that eval.py takes.

    python -m diffusion_policy.scripts.import_checkpoint latest.ckpt OUT.ckpt --allow-pickle
    python -m diffusion_policy.scripts.import_checkpoint model.safetensors OUT.ckpt \\
        --config-name train_dot_pusht_lerobot
    python -m diffusion_policy.scripts.import_checkpoint pretrained_model/ OUT.ckpt

A .ckpt file is one of Diffusion Policy on PushT and brings its settings along. A .safetensors file
is one of DOT, whose settings are those of --config-name. A folder is an ACT policy of LeRobot.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.util.errors import UserError, reports_user_errors


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="published checkpoint: a file or folder")
    parser.add_argument("target", type=Path, help="checkpoint to write (.ckpt)")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read a .ckpt file although it is a pickle, which can run code of its maker's choice",
    )
    parser.add_argument(
        "--config-name",
        help="config with the settings of a .safetensors file (default: train_dot_pusht_lerobot)",
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of that config")
    return parser.parse_intermixed_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    source, target = options.source, options.target
    if target.exists():
        raise UserError(f"{target} exists; choose another name or delete it")
    if source.is_dir():
        _check_no_config(options)
        from diffusion_policy.interop.act_checkpoint import import_act

        imported = import_act(source)
    elif source.suffix == ".safetensors":
        from diffusion_policy.interop.dot_checkpoint import import_dot

        config_name = options.config_name or "train_dot_pusht_lerobot"
        imported = import_dot(source, config_name, options.overrides)
    else:
        _check_pickle_options(options)
        from diffusion_policy.interop.diffusion_policy_checkpoint import import_diffusion_policy

        imported = import_diffusion_policy(source)
    imported.save(target)
    for remark in imported.remarks:
        print(f"note: {remark}")
    evaluate = f"evaluate it with python eval.py --checkpoint {shlex.quote(str(target))}"
    act = "act with load_agent (docs/agent.md)"
    print(f"wrote {target}; {evaluate if imported.cfg.task.get('env_runner') else act}")


def _check_no_config(options: argparse.Namespace) -> None:
    if options.config_name or options.overrides:
        raise UserError(
            f"{options.source} brings its own settings; leave out --config-name and overrides, or "
            "give a .safetensors file"
        )


def _check_pickle_options(options: argparse.Namespace) -> None:
    _check_no_config(options)
    if not options.allow_pickle:
        raise UserError(
            f"{options.source} is a pickle, which can run code of its maker with your rights; only "
            "tensors and plain values are built here, but add --allow-pickle only if you trust "
            "whoever made it"
        )


if __name__ == "__main__":
    main()
