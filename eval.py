"""Score a trained policy: ``python eval.py --checkpoint PATH``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from diffusion_policy.util.errors import reports_user_errors

# As in train.py: before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Play episodes with a checkpoint's policy; write eval_info.json (every "
        "episode, success rate with its 95 % interval), videos and report.html."
    )
    default = "(default: %(default)s)"
    parser.add_argument(
        "-c",
        "--checkpoint",
        dest="checkpoints",
        type=Path,
        action="append",
        required=True,
        help="file written by train.py, or a folder of config.yaml and model.safetensors; given "
        "several times, all play the same episodes and are compared with the first",
    )
    parser.add_argument(
        "-o",
        "--output-dir",
        "--output_dir",  # as in the original diffusion_policy
        type=Path,
        help="folder for the results (default: one in data/eval, named after the checkpoint)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings of the checkpoint's config to change, such as "
        "policy.noise_scheduler.num_inference_steps=10; +key=value adds a setting",
    )
    parser.add_argument(
        "--starts",
        help="how episodes start: from a data set (the initial states of its episodes), from a "
        "YAML file with a list of starts, or from a group of the checkpoint's "
        "task.env_runner.groups (default: fresh seeds)",
    )
    parser.add_argument(
        "--n-episodes", type=int, help="number of episodes (default: 1000, or all of --starts)"
    )
    parser.add_argument(
        "--start-seed",
        type=int,
        help="seed of the first episode; the next episodes count up (default: 100000, or the "
        "seeds of --starts)",
    )
    parser.add_argument(
        "--n-videos",
        type=int,
        default=5,
        help=f"record this many of the first successes and of the first failures {default}",
    )
    parser.add_argument("--n-workers", type=int, help="worker processes (default: one per core)")
    parser.add_argument(
        "--num-threads",
        type=int,
        help="CPU threads of the policy (default: one per core); 1 is often faster on a busy "
        "machine. Actions may differ in their last digits",
    )
    parser.add_argument(
        "-d", "--device", default="auto", help=f"auto, cpu, cuda, cuda:1 or mps {default}"
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16", "auto"],
        default="fp32",
        help="precision of the policy's matrix products; auto is bf16 where the device supports "
        f"it. Large networks are faster in bf16; actions differ slightly {default}",
    )
    parser.add_argument(
        "--embodiment",
        help="robot that acts, for a policy that was trained on several (default: the task's)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the results in the folder"
    )
    parser.add_argument(
        "--trust-checkpoint",
        dest="trust",
        action="store_true",
        help="also build policies and environments of other packages that the checkpoint names, "
        "such as your own. The file can then run any code with your rights, so use this only for "
        "files that you trust",
    )
    return parser.parse_intermixed_args()


@reports_user_errors
def main() -> None:
    arguments = parse_arguments()
    # A late import: --help and a mistyped option should not wait for torch.
    from diffusion_policy.env_runner.paired import evaluate_checkpoints

    evaluate_checkpoints(**vars(arguments))


if __name__ == "__main__":
    main()
