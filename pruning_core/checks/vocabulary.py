"""What numbers must be by the name that they have everywhere: an argument of another range is declared where it stands."""

from pruning_core.checks.constraints import SEED, Constraint, Real, Whole

_COUNTS = (
    "ambient", "batch_size", "bins", "channels", "checkpoint_every", "classes", "columns", "draws",
    "embed_dim", "epochs_tune", "every", "head_dim", "hidden", "iterations", "jobs", "kdim", "largest", "limit", "memory",
    "num_features", "num_heads", "outputs", "points", "probes", "repeats", "resamples", "rounds", "samples", "seeds",
    "steps", "steps_per_epoch", "stride", "ticks", "tocks", "trials", "turns", "vdim",
)  # fmt: skip
_COUNTS_FROM_ZERO = (
    "after",
    "dimension",
    "early",
    "epochs",
    "epochs_mine",
    "exact_below",
    "fine_tune",
    "retrain",
    "warmup",
)

NUMBERS: dict[str, Constraint] = {
    **dict.fromkeys(("seed", "random_labels"), SEED),
    **dict.fromkeys(_COUNTS, Whole(at_least=1)),
    **dict.fromkeys(_COUNTS_FROM_ZERO, Whole(at_least=0)),
    **dict.fromkeys(("sparsity", "prune_pc"), Real(at_least=0, below=1)),
    **dict.fromkeys(("delta", "eta", "level"), Real(above=0, below=1)),
    **dict.fromkeys(("constant", "lr", "max_minutes", "time_limit", "width"), Real(above=0)),
    **dict.fromkeys(("epsilon", "strength", "reg_weight", "tolerance"), Real(at_least=0)),
}
