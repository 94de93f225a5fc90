"""Pretrain the keypoint CNN on images of random PushT scenes instead of ImageNet.

    python -m diffusion_policy.scripts.pretrain_keypoint_cnn --output data/keypoint_cnn.safetensors

The network learns to locate the agent and the keypoints. It needs no demonstrations and no actions.
A policy loads the weights through policy.backbone_weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor, nn
from tqdm import tqdm, trange

from diffusion_policy.dataset.normalization import image_normalizer
from diffusion_policy.env.pusht.observations import agent_pos, image, keypoint
from diffusion_policy.env.pusht.scenes import random_scenes
from diffusion_policy.env.pusht.simulation import WORLD_SIZE
from diffusion_policy.model.vision.backbone import save_backbone
from diffusion_policy.model.vision.keypoint_cnn import KeypointCNN
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, reports_user_errors, writing
from diffusion_policy.util.pytorch_util import AUTOCAST_DTYPES, resolve_device, resolve_precision
from diffusion_policy.util.weights_file import WEIGHTS_SUFFIX

mpl.use("Agg")
import matplotlib.pyplot as plt

_N_HELD_OUT = 2000
_LEARNING_RATE = 2e-3


def draw_scenes(n: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``n`` random scenes; return their images and the positions of agent and block.

    Returns:
        (n, 3, 96, 96) uint8, and (n, 20) float32: x, y of 9 keypoints and the agent in world
        units, about 0..512.
    """
    states = random_scenes(n, random)
    images = np.empty((n, 3, 96, 96), np.uint8)  # np.stack of a list would need twice the memory
    for i, state in enumerate(tqdm(states, "Drawing", unit="image", disable=None)):
        images[i] = image(state)
    places = np.concatenate([keypoint(states), agent_pos(states)], axis=-1)
    return torch.from_numpy(images), torch.from_numpy(places)


class Locator(nn.Module):
    """A backbone with a linear layer: (N, 3, H, W) uint8 -> (N, K) coordinates in world units."""

    def __init__(self, backbone: KeypointCNN, n_numbers: int) -> None:
        super().__init__()
        self.backbone = backbone
        n_features: Any = backbone.fc.in_features
        self.backbone.fc = nn.Linear(n_features, n_numbers)
        self.normalizer = image_normalizer("MEAN_STD")

    def forward(self, images: Tensor) -> Tensor:
        places = self.backbone(self.normalizer.normalize(images))
        return (places + 1) * (WORLD_SIZE / 2)


def train(locator: Locator, images: Tensor, places: Tensor, steps: int, batch_size: int) -> None:
    """Minimise the L1 error; images and places are on the CPU."""
    device = next(locator.parameters()).device
    dtype = AUTOCAST_DTYPES[resolve_precision("auto", device)]
    optimizer = torch.optim.AdamW(
        locator.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), fused=True
    )
    scheduler = get_cosine_schedule_with_warmup(optimizer, steps // 15, steps)
    progress = trange(steps, desc="Training", unit="step")
    for _ in progress:
        rows = torch.randint(len(images), (batch_size,))
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            found = locator(images[rows].to(device))
        error = (found.float() - places[rows].to(device)).abs().mean()
        optimizer.zero_grad()
        (error / WORLD_SIZE).backward()
        optimizer.step()
        scheduler.step()
        progress.set_postfix_str(f"error {error.item():.2f} of {WORLD_SIZE}", refresh=False)


@torch.no_grad()
def locate(locator: Locator, images: Tensor) -> Tensor:
    """Return the coordinates (n, K) that the network finds, on the CPU in world units."""
    device = next(locator.parameters()).device
    return torch.cat([locator(part.to(device)).cpu() for part in images.split(256)])


def draw_sheet(images: Tensor, places: Tensor, found: Tensor, path: Path) -> None:
    """Save a PNG of images with a ring at each true position and a cross at each found one."""
    figure, axes = plt.subplots(2, 6, figsize=(15, 5), layout="constrained")
    to_pixels = images.shape[-1] / WORLD_SIZE
    for axis, shown, *points in zip(axes.flat, images, places, found, strict=False):
        true, guessed = ((p.unflatten(0, (-1, 2)) * to_pixels - 0.5).T.numpy() for p in points)
        axis.imshow(shown.permute(1, 2, 0).numpy())
        axis.scatter(*true, s=40, facecolors="none", edgecolors="black", linewidths=0.7)
        axis.scatter(*guessed, s=25, marker="x", color="tab:red", linewidths=0.9)
    for axis in axes.flat:
        axis.axis("off")
    with writing(path), replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=100)
    plt.close(figure)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help=f"{WEIGHTS_SUFFIX} file to write; a .png of found positions is written next to it",
    )
    parser.add_argument("--scenes", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser.parse_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    for name in ("scenes", "steps", "batch_size"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is {getattr(options, name)}; use at least 1")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; use 0 or more")
    if options.output.suffix != WEIGHTS_SUFFIX:
        raise UserError(f"--output is {options.output}; use a name that ends with {WEIGHTS_SUFFIX}")
    sheet = options.output.with_suffix(".png")
    for path in (options.output, sheet):
        if path.is_dir() or (path.exists() and not options.overwrite):
            raise UserError(
                f"{path} exists; choose another --output, or replace files with --overwrite"
            )
    with writing(options.output):  # fail now, not after minutes of work
        options.output.parent.mkdir(parents=True, exist_ok=True)
    device = resolve_device(options.device)
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    held_out = draw_scenes(_N_HELD_OUT, random)
    scenes = draw_scenes(options.scenes, random)
    locator = Locator(KeypointCNN(), n_numbers=scenes[1].shape[1])
    locator.to(device)
    train(locator, *scenes, options.steps, options.batch_size)
    images, places = held_out
    found = locate(locator.eval(), images)
    error = (found - places).abs().mean(-1)
    summary = (
        f"{error.mean():.2f} of {WORLD_SIZE} units per coordinate, "
        f"below {error.quantile(0.95):.2f} in 95 % of the scenes"
    )
    used = {name: str(getattr(options, name)) for name in ("scenes", "steps", "batch_size", "seed")}
    save_backbone(locator.backbone, options.output, {**used, "error on new scenes": summary})
    draw_sheet(images, places, found, sheet)
    print(f"wrote {options.output}; error on {_N_HELD_OUT} new scenes: {summary}; see {sheet}")


if __name__ == "__main__":
    main()
