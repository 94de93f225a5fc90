"""What somebody meant who misspelt a name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


def known_names(name: str, known: Collection[str], section: str = "") -> str:
    """End of a message about an unknown name: the one that was meant, or else all that are known.

    Args:
        section: full key of what they are keys of.
    """
    return meant_or(f"known keys are {', '.join(known)}", name, known, section)


def meant_or(remedy: str, name: str, known: Iterable[str], section: str = "") -> str:
    """``did you mean ...?`` where one of the known names is close, else the remedy."""
    close = get_close_matches(name, list(known), n=1)
    if not close:
        return remedy
    return f"did you mean {section}.{close[0]}?" if section else f"did you mean {close[0]}?"
