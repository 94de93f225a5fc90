"""Score a trained policy: ``python eval.py --checkpoint PATH``."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_policy.util.errors import reports_user_errors


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Play episodes with a checkpoint's policy; write eval_info.json (every "
        "episode, success rate with its 95 % interval), videos and report.html."
    )
    default = "(default: %(default)s)"
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="file written by train.py, or a folder of config.yaml and model.safetensors",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        help="folder for the results (default: one in data/eval, named after the checkpoint)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings of the checkpoint's config to change, such as "
        "policy.noise_scheduler.num_inference_steps=10; +key=value for one that it does not name",
    )
    parser.add_argument(
        "--starts",
        help="where episodes begin: a data set, for the initial states of its recorded episodes; a "
        "YAML file with a list of starts; or a group of the checkpoint's task.env_runner.groups "
        "(default: fresh seeds)",
    )
    parser.add_argument(
        "--n-episodes", type=int, help="how many (default: 1000, or as many as there are --starts)"
    )
    parser.add_argument(
        "--start-seed",
        type=int,
        help="seed of the first episode; each further one has the next (default: 100000, or those "
        "of --starts)",
    )
    parser.add_argument(
        "--n-videos",
        type=int,
        default=5,
        help=f"record the first so many successes and as many failures {default}",
    )
    parser.add_argument("--n-workers", type=int, help="processes (default: one for each core)")
    parser.add_argument(
        "--device", default="auto", help=f"auto, cpu, cuda, cuda:1 or mps {default}"
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16", "fp16", "auto"],
        default="fp32",
        help="of the policy's matrix products; auto is bf16 where the device has it. Large "
        f"networks are faster in bf16, and actions differ a little {default}",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the results in the folder"
    )
    parser.add_argument(
        "--trust-checkpoint",
        dest="trust",
        action="store_true",
        help="also build policies and environments from outside diffusion_policy that the "
        "checkpoint names: your own, say. This lets the file run any code with your rights, so "
        "use it only on files whose maker you trust",
    )
    return parser.parse_intermixed_args()


@reports_user_errors
def main() -> None:
    arguments = parse_arguments()
    # Imported late: --help and a mistyped option should not wait for torch.
    from diffusion_policy.env_runner.evaluation import evaluate_checkpoint

    evaluate_checkpoint(**vars(arguments))


if __name__ == "__main__":
    main()
