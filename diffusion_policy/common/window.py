"""The window where the first versions had it, for policies and tasks written for them."""

from diffusion_policy.spec.window import Window as Window
