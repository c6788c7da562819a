"""The geometry behind a pruning limit: cones and how large they are, Gaussian widths, and when a subspace meets a cone."""
