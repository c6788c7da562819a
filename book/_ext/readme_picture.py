"""The README's picture, drawn from the records of notebook 0_foundations/2: `python book/_ext/readme_picture.py`."""

import matplotlib

matplotlib.use("svg")

from pathlib import Path

from pruning_core import plots, records

TARGET = Path(__file__).resolve().parents[1] / "_assets" / "accuracy_against_sparsity.png"


def main() -> None:
    """Accuracy after fine-tuning against sparsity, magnitude beside random, on five thousand MNIST images."""
    rows = records.load(
        label="fine-tuned",
        model="lenet300",
        data="mnist5k",
        method=["magnitude", "random"],
        across="global",
        rounds="one-shot",
    )
    figure = plots.accuracy_against_sparsity(rows, title="One-shot pruning of LeNet-300-100, after fine-tuning")
    figure.savefig(TARGET, format="png", dpi=120, facecolor="white", bbox_inches="tight")
    print(f"{TARGET.name}: {len(rows)} rows, seeds {sorted(rows['seed'].unique())}")


if __name__ == "__main__":
    main()
