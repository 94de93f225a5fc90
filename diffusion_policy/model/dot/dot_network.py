"""DOT: a decoder-only transformer that reads observations and writes an action chunk.

There is no encoder and no sampling: fixed sinusoidal queries, one a predicted action, attend to
each other and to the embedded observations, and a linear head turns each query into an action.

Legend: B batch, S observation times, Q action queries, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.lora import LoRAConfig, add_lora
from diffusion_policy.model.common.transformer import Attention, TransformerDecoder
from diffusion_policy.model.vision.backbone import build_backbone
from diffusion_policy.model.vision.feature_cache import FeatureCache
from diffusion_policy.model.vision.resnet import RESNETS, STRIDE, SpatialTokens, add_conv_lora
from diffusion_policy.util.errors import UserError

_PICTURES_REMEMBERED = 4096
"""A picture is looked at now, one step later and ``lookback`` steps later. In between, each
environment shows less than 2 x lookback others: room for 50 of them with 3 cameras and a lookback
of 10. A picture takes 512 bytes as one token of width 128, 18 kB as nine of width 512."""


def sinusoidal_positions(n: int, dim: int) -> Tensor:
    """(n, dim) sines at even and cosines at odd columns (Vaswani et al. 2017, section 3.5)."""
    position = torch.arange(n, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    table = torch.zeros(n, dim)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


def horizon_mask(n_queries: int, n_hidden: int) -> Tensor:
    """(Q, Q) bool, True where query row may attend to column.

    The last ``n_hidden`` queries exist in training alone, so no other row may look at them:
    then the rows shared by training and inference predict the same.
    """
    mask = torch.ones(n_queries, n_queries, dtype=torch.bool)
    if n_hidden > 0:
        mask[:-n_hidden, -n_hidden:] = False
    return mask


class ScalarTokens(nn.Module):
    """Embed each number of a vector as a token of its own: (N, K) -> (N, K, dim)."""

    def __init__(self, n_scalars: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_scalars, dim).uniform_(-1, 1))
        self.bias = nn.Parameter(torch.zeros(n_scalars, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x[..., None] * self.weight + self.bias


def _refuse_what_resnets_take(backbone: str, lora_rank: int, image_tokens: str) -> None:
    """Refuse what is for ResNets alone."""
    if lora_rank:
        raise UserError(f"policy.lora_rank is {lora_rank}, but {backbone} takes no adapters; use 0")
    if image_tokens == "spatial":
        raise UserError(
            f"policy.image_tokens is 'spatial', which {backbone} has no cells for; use pooled, or "
            f"one of {', '.join(RESNETS)} as policy.backbone"
        )


def _require_worth_freezing(weights: str | None, lora_rank: int) -> None:
    if weights is None:
        raise UserError(
            "policy.freeze_backbone is true, but policy.backbone_weights is null; give weights, or "
            "use false to train random ones"
        )
    if lora_rank:
        raise UserError(
            f"policy.freeze_backbone is true, but policy.lora_rank is {lora_rank}, and adapters "
            "change a backbone; use 0 to leave it as it is"
        )


class DOTNetwork(nn.Module):
    """Observations of S times in, Q actions out, everything normalised.

    Args:
        state_dim: numbers in ``state`` (robot), 0 when there is none.
        environment_state_dim: numbers in ``environment_state``, 0 when there is none.
        n_cameras: images a time step; all cameras share one backbone.
        action_dim: numbers of an action.
        n_obs_steps: S.
        lookback: steps between now and the oldest observation.
        train_horizon: predicted actions from now on, in training.
        inference_horizon: predicted actions from now on, at inference; at most train_horizon.
        dim, n_heads, dim_feedforward, n_layers, dropout: size of the decoder.
        backbone, backbone_weights: name and weights, see :func:`build_backbone`.
        lora_rank: rank of the backbone's adapters; 0 trains the backbone itself.
        freeze_backbone: train nothing of the backbone but its last layer.
        image_tokens: ``pooled`` (one token an image) or ``spatial`` (one a feature-map cell, and
            one a scalar of each low-dim input).
        image_size: (height, width) of the images, for the number of spatial tokens.
        use_prefix: prepend one learned token to the memory.
        decoder_lora: adapters on the attention queries and values and on the input projections,
            with all their base weights frozen; None trains everything.
    """

    def __init__(
        self,
        *,
        state_dim: int,
        environment_state_dim: int,
        n_cameras: int,
        action_dim: int,
        n_obs_steps: int = 3,
        lookback: int = 10,
        train_horizon: int = 20,
        inference_horizon: int = 20,
        dim: int = 128,
        n_heads: int = 8,
        dim_feedforward: int = 512,
        n_layers: int = 8,
        dropout: float = 0.1,
        backbone: str = "resnet18",
        backbone_weights: str | None = None,
        lora_rank: int = 20,
        freeze_backbone: bool = False,
        image_tokens: str = "pooled",
        image_size: tuple[int, int] = (96, 96),
        use_prefix: bool = True,
        decoder_lora: LoRAConfig | None = None,
    ) -> None:
        super().__init__()
        self._seen = FeatureCache(_PICTURES_REMEMBERED)
        if dim % n_heads != 0:
            raise UserError(
                f"policy.n_heads is {n_heads}; use a number that divides policy.dim ({dim})"
            )
        if not 0 <= dropout < 1:
            raise UserError(f"policy.dropout is {dropout}; use at least 0 and less than 1")
        if image_tokens not in ("pooled", "spatial"):
            raise UserError(f"policy.image_tokens is {image_tokens!r}; use pooled or spatial")
        spatial = image_tokens == "spatial"
        self.projections = nn.ModuleDict()
        tokens_per_step = {}
        for name, size in (("state", state_dim), ("environment_state", environment_state_dim)):
            if size:
                self.projections[name] = (
                    ScalarTokens(size, dim) if spatial else nn.Linear(size, dim)
                )
                tokens_per_step[name] = size if spatial else 1
        if n_cameras:
            encoder = build_backbone(
                "policy.backbone", "policy.backbone_weights", backbone, backbone_weights
            )
            # Not isinstance: True is an int.
            if type(lora_rank) is not int or lora_rank < 0:
                raise UserError(f"policy.lora_rank is {lora_rank!r}; use a whole number from 0")
            if backbone not in RESNETS:
                _refuse_what_resnets_take(backbone, lora_rank, image_tokens)
            if not isinstance(freeze_backbone, bool):
                raise UserError(f"policy.freeze_backbone is {freeze_backbone!r}; use true or false")
            if freeze_backbone:
                _require_worth_freezing(backbone_weights, lora_rank)
                encoder.requires_grad_(False)
            if spatial:
                encoder = SpatialTokens(encoder, dim)
                cells = math.prod(math.ceil(side / STRIDE) for side in image_size)
            else:
                encoder.fc = nn.Linear(encoder.fc.in_features, dim)
                cells = 1
            if lora_rank:
                add_conv_lora(encoder, lora_rank)
            self.projections["images"] = encoder
            tokens_per_step["images"] = n_cameras * cells

        n_tokens = n_obs_steps * sum(tokens_per_step.values())
        self.prefix_input = nn.Parameter(torch.randn(1, 1, dim)) if use_prefix else None
        bound = 1 / math.sqrt(dim)
        self.inputs_pos_emb = nn.Parameter(torch.empty(1, n_tokens, dim).uniform_(-bound, bound))
        # One query for the oldest observation's action, then one for each action from the second
        # oldest observation on: rows of a table over lookback + train_horizon steps.
        positions = sinusoidal_positions(lookback + train_horizon, dim)
        n_recent = train_horizon + n_obs_steps - 2
        if n_obs_steps == 1:
            positions = positions[-train_horizon:]
        else:
            positions = torch.cat([positions[:1], positions[-n_recent:]])
        self.register_buffer("decoder_pos", positions, persistent=False)
        self.dropout = dropout
        self.n_training_only = train_horizon - inference_horizon
        mask = horizon_mask(len(positions), self.n_training_only)
        self.register_buffer("mask", mask if self.n_training_only else None, persistent=False)
        self.decoder = TransformerDecoder(n_layers, dim, n_heads, dim_feedforward, dropout)
        self.action_head = nn.Linear(dim, action_dim)
        if decoder_lora is not None:
            self._adapt(decoder_lora)

    def _adapt(self, config: LoRAConfig) -> None:
        """Freeze the decoder and the input projections and add low-rank adapters to them."""
        self.decoder.requires_grad_(False)
        for module in self.decoder.modules():
            if isinstance(module, Attention):
                dim = module.out_proj.in_features
                query, value = (0, dim), (2 * dim, 3 * dim)
                add_lora(module, "in_proj_weight", config, [query, value])
        for name, projection in self.projections.items():
            target = projection.fc if name == "images" else projection
            target.bias.requires_grad_(False)
            add_lora(target, "weight", config, None)

    def train(self, mode: bool = True) -> DOTNetwork:
        """As of any module; the next evaluation remembers no picture of the last one."""
        self._seen.clear()
        return super().train(mode)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Memory of the decoder, (B, 1 + tokens, D).

        Args:
            inputs: ``state`` (B, S, K), ``environment_state`` (B, S, K) and ``images``
                (B, S * cameras, 3, H, W), time-major, those that the network was built for.
        """
        tokens = []
        for name in sorted(self.projections):
            project, x = self.projections[name], inputs[name]
            rows = x.flatten(0, 1)
            embedded = self._seen(project, rows) if name == "images" else project(rows)
            tokens.append(embedded.reshape(len(x), -1, embedded.shape[-1]))
        memory = torch.cat(tokens, dim=1) + self.inputs_pos_emb
        if self.prefix_input is None:
            return memory
        return torch.cat([self.prefix_input.expand(len(memory), -1, -1), memory], dim=1)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, Q, action_dim): all queries in training mode, the inference ones in eval mode."""
        memory = self.embed(inputs)
        queries, mask = self.decoder_pos, self.mask
        if not self.training and self.n_training_only:
            # The mask hides the dropped rows from the kept ones and nothing else.
            queries, mask = queries[: -self.n_training_only], None
        queries = queries[None]
        if self.training and self.dropout:
            # Each row drops elements of its own from the first layer on.
            queries = queries.expand(len(memory), -1, -1)
        features = self.decoder(queries, memory, mask)
        # Eight bits would round an action to a pixel: the head works in full precision.
        with torch.autocast(features.device.type, enabled=False):
            return self.action_head(features.float())
