"""The picture that a link to the book brings along, made from the README's: `python book/_ext/social_card.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib.figure import Figure

from pruning_core.plots import COLOURS

ASSETS = Path(__file__).resolve().parents[1] / "_assets"
SIZE = 1200, 630  # pixels, what the sites that show such cards ask for


def main() -> None:
    """The title on the left, the figure on the right; nothing that a run would have to make again."""
    card = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor="white")
    card.text(0.05, 0.66, "The pruning book", fontsize=36, weight="bold", color=COLOURS["blue"])
    card.text(0.05, 0.40, "Five papers on pruning\nneural networks, re-made\nby code that you can run", fontsize=24)
    axes = card.add_axes((0.49, 0.08, 0.48, 0.84))
    axes.imshow(matplotlib.image.imread(ASSETS / "accuracy_against_sparsity.png"), interpolation="lanczos")
    axes.axis("off")
    card.savefig(ASSETS / "social_card.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
