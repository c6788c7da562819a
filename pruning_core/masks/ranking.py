"""Which of many scores go when a budget says how much: exact counts, ties spread over layers, a minimum left in each."""

from __future__ import annotations

import numpy as np

from pruning_core.errors import BudgetError


class Ranking:
    """The scores of all sites side by side: which units are alive, which are protected, which go first."""

    def __init__(self, names, scores: list[np.ndarray], living: list[np.ndarray | None], minimum: list[int]):
        self.names = names
        self.scores = scores
        self.living = [None if bools is None or bools.all() else bools for bools in living]
        self.sizes = np.array([score.size for score in scores])
        self.alive_counts = np.array(
            [s.size if b is None else np.count_nonzero(b) for s, b in zip(scores, self.living, strict=True)]
        )
        self.minimum = np.minimum(self.alive_counts, minimum)
        self.total, self.living_total = int(self.sizes.sum()), int(self.alive_counts.sum())
        self.minimum_total = int(self.minimum.sum())
        # Protected units rank above everything, so that no cut can empty a site.
        self.protected = [self._best(i, int(least)) for i, least in enumerate(self.minimum)]

    def _best(self, i: int, count: int) -> np.ndarray:
        """Indices of the best living units of site i."""
        score, living = self.scores[i], self.living[i]
        ranked = score if living is None else np.where(living, score, -np.inf)
        if count == 1:
            return np.array([np.argmax(ranked)])
        return np.argsort(-ranked, kind="stable")[:count]

    def above(self, threshold: float) -> list[np.ndarray]:
        """What is alive and scores above the threshold, or is protected."""
        keep = [score > threshold for score in self.scores]
        for part, living, protected in zip(keep, self.living, self.protected, strict=True):
            if living is not None:
                part &= living
            part[protected] = True
        return keep

    def top(self, kept: int) -> list[np.ndarray]:
        """Keep the ``kept`` best units of all sites together."""
        if kept < self.minimum_total:
            raise BudgetError(
                f"{kept} left to share, but the {len(self.names)} layers or groups keep at least {self.minimum_total} in "
                "all: a layer would be emptied; ask for a lower sparsity."
            )
        if kept == 0:
            return [np.zeros(size, dtype=bool) for size in self.sizes]
        pool = np.concatenate([s if b is None else s[b] for s, b in zip(self.scores, self.living, strict=True)])
        start = 0
        for living, protected, count in zip(self.living, self.protected, self.alive_counts, strict=True):
            where = protected if living is None else np.searchsorted(np.flatnonzero(living), protected)
            pool[start + where] = np.inf
            start += count
        pool.partition(len(pool) - kept)
        threshold = pool[len(pool) - kept]
        keep = self.above(threshold)
        ties = kept - sum(int(np.count_nonzero(part)) for part in keep)
        if ties:
            self._spread(ties, threshold, keep)
        return keep

    def _spread(self, ties: int, threshold: float, keep: list[np.ndarray]) -> None:
        """Keep ``ties`` more of the units that score exactly ``threshold``: in proportion, the lower index first.

        Protected units among them, which are the first of their site, count towards its share.
        """
        tied = [score == threshold for score in self.scores]
        for equal, living in zip(tied, self.living, strict=True):
            if living is not None:
                equal &= living
        of_each = np.array([np.count_nonzero(equal) for equal in tied])
        already = np.array([np.count_nonzero(e[p]) for e, p in zip(tied, self.protected, strict=True)])
        total = ties + int(already.sum())
        share = of_each if total == of_each.sum() else share_out(total, of_each, already, of_each)
        for part, equal, count in zip(keep, tied, share, strict=True):
            part[np.flatnonzero(equal)[:count]] = True

    def top_of_each(self, counts: np.ndarray) -> list[np.ndarray]:
        """Keep the ``counts[i]`` best units of site i."""
        sites = zip(self.names, self.scores, self.living, counts, strict=True)
        return [Ranking([name], [score], [living], [0]).top(int(count))[0] for name, score, living, count in sites]

    def rounded_up(self, keep: list[np.ndarray], multiple: int) -> list[np.ndarray]:
        """``keep`` and the next best of each site, up to a multiple, or to all that is alive where that is less."""
        counts = np.array([np.count_nonzero(part) for part in keep])
        return self.top_of_each(np.minimum(-(-counts // multiple) * multiple, self.alive_counts))


def share_out(total: int, shares: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Whole numbers between ``lower`` and ``upper`` that add up to ``total``, as nearly in proportion to ``shares`` as
    the bounds allow: clip(c * shares) with the c that fits, then largest remainders."""
    filled = shares > 0
    exact = np.clip(_factor(total, shares, lower, upper) * shares, lower, upper)
    whole = np.clip(np.floor(exact + 1e-9), lower, upper).astype(np.int64)
    remainder = np.where(whole < upper, exact - whole, -np.inf)
    missing = int(total - whole.sum())
    while missing > 0:
        takers = np.argsort(-remainder, kind="stable")[:missing]
        takers = takers[whole[takers] < upper[takers]]
        if len(takers) == 0:
            raise BudgetError(f"{total} units do not fit into {int(upper.sum())}.")
        whole[takers] += 1
        remainder = np.where((whole < upper) & filled, exact - whole, -np.inf)
        missing = int(total - whole.sum())
    while missing < 0:
        givers = [i for i in np.argsort(exact - whole, kind="stable") if whole[i] > lower[i]][:-missing]
        if not givers:
            raise BudgetError(f"{total} units are fewer than the {int(lower.sum())} that must stay.")
        whole[givers] -= 1
        missing = int(total - whole.sum())
    return whole


def _factor(total: int, shares: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The least c, to the last bit, for which clip(c * shares) adds up to ``total``."""

    def too_small(c: float) -> bool:
        return np.minimum(np.maximum(c * shares, lower), upper).sum() < total

    low, high = 0.0, 1.0
    while too_small(high) and high < 1e300:
        high *= 2
    # Neighbouring numbers have none between them; towards zero, where numbers lie ever closer, 200 halvings are enough.
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if too_small(middle):
            low = middle
        else:
            high = middle
    return high
