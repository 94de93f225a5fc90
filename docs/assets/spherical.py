"""Draw docs/assets/spherical.png: python docs/assets/spherical.py"""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

MAGNITUDE, THETA, PHI = 1.0, np.radians(50), np.radians(40)


def point(magnitude: float, theta: float | np.ndarray, phi: float | np.ndarray) -> list:
    return [
        magnitude * np.sin(theta) * np.cos(phi),
        magnitude * np.sin(theta) * np.sin(phi),
        magnitude * np.cos(theta) + 0 * phi,
    ]


def draw_vector(axes: plt.Axes) -> None:
    axes.set_proj_type("ortho")
    axes.view_init(elev=22, azim=20)
    for name, end in (("dx", (1, 0, 0)), ("dy", (0, 1, 0)), ("dz", (0, 0, 0.85))):
        axes.quiver(0, 0, 0, *end, color="0.6", arrow_length_ratio=0.06)
        axes.text(*(1.08 * np.array(end)), name, color="0.4")
    tip = point(MAGNITUDE, THETA, PHI)
    axes.quiver(0, 0, 0, *tip, color="tab:blue", linewidth=2.5, arrow_length_ratio=0.1)
    axes.plot(*np.transpose([tip, (*tip[:2], 0), (0, 0, 0)]), color="0.7", linestyle=":")
    axes.text(*(0.8 * np.array(tip) + [0, 0.05, 0.12]), "magnitude", color="tab:blue")
    arc = np.linspace(0, 1, 30)
    axes.plot(*point(0.4, arc * THETA, PHI), color="tab:orange", linewidth=2)
    axes.text(*point(0.48, THETA / 2, PHI), "theta", color="tab:orange")
    axes.plot(*point(0.4, np.pi / 2, arc * PHI), color="tab:green", linewidth=2)
    axes.text(*point(0.5, np.pi / 2, PHI / 2), "phi", color="tab:green")
    axes.set(xlim=(0, 0.8), ylim=(0, 0.8), zlim=(0, 0.9))
    axes.set_axis_off()


def draw_ranges(axes: plt.Axes) -> None:
    raw = np.linspace(-1, 1, 100)
    axes.plot(raw, 1 / (1 + np.exp(-raw)), label="spherical")
    axes.plot(raw, (raw + 1) / 2 * np.sqrt(3), label="spherical_full")
    axes.axhline(np.sqrt(3), color="0.7", linestyle=":")
    axes.text(-0.98, np.sqrt(3) - 0.09, "corner of the cube of actions", color="0.5")
    axes.set(xlabel="raw number, after tanh", ylabel="magnitude", xlim=(-1, 1), ylim=(0, 1.8))
    axes.legend(loc="center left")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    figure = plt.figure(figsize=(9, 3.6), layout="constrained")
    draw_vector(figure.add_subplot(1, 2, 1, projection="3d"))
    draw_ranges(figure.add_subplot(1, 2, 2))
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)


if __name__ == "__main__":
    main()
