"""Exact areas of overlap between convex polygons, for the PushT coverage.

The T is two rectangles that share an edge, so the overlap of two Ts is the sum of four
convex overlaps. Clipping those directly needs no geometry library and is exact.
"""

from collections.abc import Sequence

Point = tuple[float, float]


def polygon_area(polygon: Sequence[Point]) -> float:
    """Unsigned area of a simple polygon (shoelace formula), in squared input units."""
    twice = 0.0
    previous_x, previous_y = polygon[-1] if polygon else (0.0, 0.0)
    for x, y in polygon:
        twice += previous_x * y - x * previous_y
        previous_x, previous_y = x, y
    return abs(twice) * 0.5


def counter_clockwise(polygon: Sequence[Point]) -> list[Point]:
    """The same polygon with positive orientation (positive shoelace sum)."""
    twice = sum(
        ax * by - bx * ay
        for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], polygon[0]], strict=True)
    )
    return list(polygon) if twice > 0 else list(polygon)[::-1]


def intersection_area(subject: Sequence[Point], clip: Sequence[Point]) -> float:
    """Area of the overlap of two convex polygons, in squared input units.

    ``clip`` must be counter-clockwise (see :func:`counter_clockwise`); ``subject`` may wind
    either way. Sutherland-Hodgman: cut the subject with one half-plane an edge of ``clip``.
    """
    polygon = subject
    ax, ay = clip[-1]
    for bx, by in clip:
        edge_x, edge_y = bx - ax, by - ay
        kept: list[Point] = []
        previous_x, previous_y = polygon[-1]
        previous_side = edge_x * (previous_y - ay) - edge_y * (previous_x - ax)
        for x, y in polygon:
            side = edge_x * (y - ay) - edge_y * (x - ax)
            if (side < 0.0) != (previous_side < 0.0):
                share = previous_side / (previous_side - side)
                kept.append(
                    (previous_x + share * (x - previous_x), previous_y + share * (y - previous_y))
                )
            if side >= 0.0:
                kept.append((x, y))
            previous_x, previous_y, previous_side = x, y, side
        if len(kept) < 3:
            return 0.0
        polygon = kept
        ax, ay = bx, by
    return polygon_area(polygon)
