"""A window on the screen: shows frames, reports keys and the mouse."""

from __future__ import annotations

import os

import numpy as np

from diffusion_policy.util.errors import UserError

# Without this pygame prints a greeting on import.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame

QUIT = "quit"
"""Reported among the keys when the user closes the window."""


class Window:
    """A window of ``width`` x ``height`` pixels.

    Raises:
        UserError: there is no screen to open it on.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        try:
            pygame.display.init()
            self._surface = pygame.display.set_mode((width, height))
        except pygame.error as error:
            raise _no_screen(str(error)) from error
        # Without a screen SDL may fall back to an invisible one.
        driver = pygame.display.get_driver()
        if driver in ("offscreen", "dummy") and driver != os.environ.get("SDL_VIDEODRIVER"):
            pygame.display.quit()
            raise _no_screen(f"SDL found only its {driver!r} driver")
        pygame.display.set_caption(title)
        self._clock = pygame.time.Clock()
        self._keys: list[str] = []
        self._mouse: tuple[int, int] | None = None

    def show(self, frame: np.ndarray) -> None:
        """Show ``frame`` (height, width, 3) uint8 RGB."""
        pygame.surfarray.blit_array(self._surface, frame.swapaxes(0, 1))
        pygame.display.flip()
        self._listen()

    def wait(self, seconds: float) -> None:
        """Wait until ``seconds`` have passed since the last wait ended."""
        self._clock.tick(1 / seconds)
        self._listen()

    def pressed(self) -> list[str]:
        """The keys pressed since the last call, oldest first, as pygame names them."""
        self._listen()
        keys, self._keys = self._keys, []
        return keys

    def mouse(self) -> tuple[int, int] | None:
        """The last position of the mouse, x and y in pixels; None before its first move."""
        self._listen()
        return self._mouse

    def close(self) -> None:
        """Close the window."""
        pygame.display.quit()

    def _listen(self) -> None:
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self._keys.append(QUIT)
            elif event.type == pygame.KEYDOWN:
                self._keys.append(pygame.key.name(event.key))
            elif event.type == pygame.MOUSEMOTION:
                self._mouse = event.pos


def _no_screen(reason: str) -> UserError:
    display = os.environ.get("DISPLAY", "")
    return UserError(
        f"cannot open a window with DISPLAY={display!r} ({reason}): run on a machine with a "
        "screen, or under xvfb-run"
    )
