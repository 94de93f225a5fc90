"""ACT: a conditional VAE whose decoder is a transformer from observations to a chunk of actions.

Source: Zhao et al., Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware (2023),
section IV. Names and shapes of the weights are those of LeRobot's ACT: its checkpoints load.

Legend: B batch, H actions of a chunk, Da numbers of an action, L latent numbers, D width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.model.act.layers import ACTIVATIONS, Decoder, Encoder, LayerSizes
from diffusion_policy.model.common import batch_random
from diffusion_policy.model.common.cpu_kernels import image_layout
from diffusion_policy.model.common.sinusoids import sinusoidal_positions, sinusoids
from diffusion_policy.model.vision.backbone import build_backbone
from diffusion_policy.model.vision.resnet import RESNETS
from diffusion_policy.util.errors import require

Inputs = Mapping[str, Tensor | Sequence[Tensor]]
"""Normalised inputs, those that the network was built for: ``state`` (B, K) of the robot,
``environment_state`` (B, K), and ``images``, one (B, 3, h, w) for each camera."""


class Latent(NamedTuple):
    """A normal distribution of style variables: mean and log of the variance, (B, L) each."""

    mean: Tensor
    log_variance: Tensor

    def sample(self) -> Tensor:
        """(B, L) drawn by :mod:`batch_random`."""
        noise = batch_random.randn(self.mean.shape, self.mean.device)
        return self.mean + (self.log_variance / 2).exp() * noise

    def divergence(self) -> Tensor:
        """(B,) Kullback-Leibler divergence from the standard normal distribution."""
        variance = self.log_variance.exp()
        return (self.mean.square() + variance - 1 - self.log_variance).sum(-1) / 2


def positions_2d(height: int, width: int, dim: int) -> Tensor:
    """(height * width, dim) sinusoids of the row, then of the column, of each cell, row by row.

    Rows and columns are counted from 1 and scaled so that the last one is 2 pi (DETR, section 3.2).
    """

    def axis(n: int) -> Tensor:
        counted = torch.arange(1, n + 1, dtype=torch.float32)
        return sinusoids(counted / (n + 1e-6) * 2 * math.pi, dim // 2)

    rows = axis(height)[:, None].expand(-1, width, -1)
    columns = axis(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


class ACTNetwork(nn.Module):
    """From one observation, and in training the recorded actions, to H actions; all normalised.

    Tokens of the encoder: the latent, the robot's state, the environment's state, and one for each
    cell of the last feature map of each camera, with 2-D sinusoidal positions. All cameras share
    the backbone and the positions. The decoder turns one learned query for each action into it.

    Args:
        state_dim: numbers in ``state``, or 0.
        environment_state_dim: numbers in ``environment_state``, or 0.
        n_cameras: images.
        action_dim: Da.
        chunk_size: H.
        dim_model, n_heads, dim_feedforward, feedforward_activation, dropout, pre_norm: of all
            layers, see :class:`LayerSizes`.
        n_encoder_layers, n_decoder_layers, n_vae_encoder_layers: depths. The original code asks for
            7 layers of the decoder and uses the first alone.
        use_vae: learn a latent of each chunk; without, the latent is 0.
        latent_dim: L.
        backbone, backbone_weights: a ResNet and its weights, see :func:`build_backbone`.
        group_norm: group norms in the backbone, which can train from random weights; otherwise
            batch norms keep the statistics of the weights.

    Raises:
        UserError: a setting is out of range, or there is nothing to observe.
    """

    vae_encoder_pos_enc: Tensor

    def __init__(
        self,
        *,
        state_dim: int,
        environment_state_dim: int,
        n_cameras: int,
        action_dim: int,
        chunk_size: int,
        dim_model: int = 512,
        n_heads: int = 8,
        dim_feedforward: int = 3200,
        feedforward_activation: str = "relu",
        n_encoder_layers: int = 4,
        n_decoder_layers: int = 1,
        n_vae_encoder_layers: int = 4,
        pre_norm: bool = False,
        dropout: float = 0.1,
        use_vae: bool = True,
        latent_dim: int = 32,
        backbone: str = "resnet18",
        backbone_weights: str | None = None,
        group_norm: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(dim_model, n_heads, dropout, feedforward_activation)
        sizes = LayerSizes(
            dim_model, n_heads, dim_feedforward, dropout, feedforward_activation, pre_norm
        )
        self.use_vae, self.latent_dim = use_vae, latent_dim
        self.has_state, self.has_environment = state_dim > 0, environment_state_dim > 0
        if use_vae:
            self.vae_encoder = Encoder(n_vae_encoder_layers, sizes)
            self.vae_encoder_cls_embed = nn.Embedding(1, dim_model)
            if self.has_state:
                self.vae_encoder_robot_state_input_proj = nn.Linear(state_dim, dim_model)
            self.vae_encoder_action_input_proj = nn.Linear(action_dim, dim_model)
            self.vae_encoder_latent_output_proj = nn.Linear(dim_model, 2 * latent_dim)
            table = sinusoidal_positions(1 + self.has_state + chunk_size, dim_model)
            self.register_buffer("vae_encoder_pos_enc", table[None], persistent=False)

        self.encoder = Encoder(n_encoder_layers, sizes)
        self.encoder_latent_input_proj = nn.Linear(latent_dim, dim_model)
        if self.has_state:
            self.encoder_robot_state_input_proj = nn.Linear(state_dim, dim_model)
        if self.has_environment:
            self.encoder_env_state_input_proj = nn.Linear(environment_state_dim, dim_model)
        self.encoder_1d_feature_pos_embed = nn.Embedding(
            1 + self.has_state + self.has_environment, dim_model
        )
        if n_cameras:
            self.backbone, n_channels = _feature_map(backbone, backbone_weights, group_norm)
            self.encoder_img_feat_input_proj = nn.Conv2d(n_channels, dim_model, kernel_size=1)
        self.n_cameras = n_cameras
        self.decoder = Decoder(n_decoder_layers, sizes)
        self.decoder_pos_embed = nn.Embedding(chunk_size, dim_model)
        self.action_head = nn.Linear(dim_model, action_dim)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(
        self, inputs: Inputs, actions: Tensor | None = None, is_pad: Tensor | None = None
    ) -> tuple[Tensor, Latent | None]:
        """A chunk (B, H, Da), and the distribution that its latent was drawn from.

        Args:
            inputs: see :data:`Inputs`.
            actions: (B, H, Da) recorded ones, in training; None takes 0 for the latent.
            is_pad: (B, H) bool, True where ``actions`` lie outside the episode.
        """
        latent = None
        if actions is not None and is_pad is not None and self.use_vae:
            latent = self.infer_latent(inputs, actions, is_pad)
        tokens, positions = self._tokens(inputs, None if latent is None else latent.sample())
        memory = self.encoder(tokens, positions)
        queries = self.decoder_pos_embed.weight
        features = self.decoder(
            tokens.new_zeros(len(tokens), *queries.shape), queries, memory, positions
        )
        # bfloat16 would round an action to a hundredth of its range.
        with torch.autocast(features.device.type, enabled=False):
            return self.action_head(features.float()), latent

    def infer_latent(self, inputs: Inputs, actions: Tensor, is_pad: Tensor) -> Latent:
        """What the VAE's encoder makes of a recorded chunk; arguments of :meth:`forward`."""
        tokens = [self.vae_encoder_cls_embed.weight.expand(len(actions), -1, -1)]
        if self.has_state:
            tokens.append(self.vae_encoder_robot_state_input_proj(inputs["state"])[:, None])
        tokens.append(self.vae_encoder_action_input_proj(actions))
        padding = nn.functional.pad(is_pad, (len(tokens) - 1, 0), value=False)
        features = self.vae_encoder(torch.cat(tokens, dim=1), self.vae_encoder_pos_enc, padding)
        with torch.autocast(features.device.type, enabled=False):
            both = self.vae_encoder_latent_output_proj(features[:, 0].float())
        return Latent(*both.chunk(2, dim=-1))

    def _tokens(self, inputs: Inputs, latent: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, D) of the encoder, and their positions (N, D)."""
        weight = self.encoder_latent_input_proj.weight
        if latent is None:
            latent = weight.new_zeros(_n_rows(inputs), self.latent_dim)
        single = [self.encoder_latent_input_proj(latent)]
        if self.has_state:
            single.append(self.encoder_robot_state_input_proj(inputs["state"]))
        if self.has_environment:
            single.append(self.encoder_env_state_input_proj(inputs["environment_state"]))
        tokens = [torch.stack(single, dim=1)]
        positions = [self.encoder_1d_feature_pos_embed.weight]
        for image in inputs["images"] if self.n_cameras else ():
            cells = self.encoder_img_feat_input_proj(self.backbone(image_layout(image)))
            tokens.append(cells.flatten(2).transpose(1, 2))
            _, dim, height, width = cells.shape
            place = positions_2d(height, width, dim)
            positions.append(place.to(cells.device))
        return torch.cat(tokens, dim=1), torch.cat(positions)


def _n_rows(inputs: Inputs) -> int:
    first = next(iter(inputs.values()))
    return len(first) if isinstance(first, Tensor) else len(first[0])


def _feature_map(name: str, weights: str | None, group_norm: bool) -> tuple[nn.Module, int]:
    """A ResNet up to its last feature map, and the channels of that."""
    remedy = f"use {', '.join(RESNETS)}, whose feature map has cells"
    require(name in RESNETS, "policy.backbone", name, remedy)
    resnet: Any = build_backbone(
        "policy.backbone",
        "policy.backbone_weights",
        name,
        weights,
        nn.BatchNorm2d if group_norm else FrozenBatchNorm2d,
        group_norm,
    )
    parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    body = nn.Sequential(OrderedDict((part, getattr(resnet, part)) for part in parts))
    return body, resnet.fc.in_features


def _check_sizes(dim: int, n_heads: int, dropout: float, activation: str) -> None:
    remedy = "use a multiple of 4, half of it for rows and half for columns"
    require(dim % 4 == 0, "policy.dim_model", dim, remedy)
    remedy = f"use a number that divides policy.dim_model ({dim})"
    require(dim % n_heads == 0, "policy.n_heads", n_heads, remedy)
    require(0 <= dropout < 1, "policy.dropout", dropout, "use at least 0 and less than 1")
    remedy = f"use {' or '.join(ACTIVATIONS)}"
    require(activation in ACTIVATIONS, "policy.feedforward_activation", activation, remedy)
