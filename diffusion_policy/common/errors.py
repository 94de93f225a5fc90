"""The error where the first versions had it, for policies and tasks written for them."""

from diffusion_policy.util.errors import UserError as UserError
