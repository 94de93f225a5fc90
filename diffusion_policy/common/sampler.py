"""Names that users of the original diffusion_policy import; the code is in dataset.sampler."""

from diffusion_policy.dataset.sampler import SequenceSampler as SequenceSampler
from diffusion_policy.dataset.sampler import create_indices as create_indices
from diffusion_policy.dataset.sampler import downsample_mask as downsample_mask
from diffusion_policy.dataset.sampler import get_val_mask as get_val_mask
