"""Gymnasium environments; importing this package registers them."""

from diffusion_policy.env import metaworld as metaworld
from diffusion_policy.env import pusht as pusht
