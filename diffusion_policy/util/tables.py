"""Format tables as text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence


def markdown_table(
    header: Sequence[object], rows: Iterable[Sequence[object]], *, right: Collection[int] = ()
) -> str:
    """Return a table in GitHub's markdown.

    Args:
        right: indices of the columns to align to the right.
    """
    rules = ["---:" if i in right else "---" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, rules, *rows))


def aligned_table(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Return ``rows`` in columns of equal width, two spaces apart.

    Args:
        left: indices of the columns to align to the left; the others align to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justify: list[Callable[[str, int], str]] = [
        str.ljust if i in left else str.rjust for i in range(len(widths))
    ]
    return "\n".join(
        "  ".join(
            align(cell, width) for align, cell, width in zip(justify, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )
