"""Tests in the rooms of the package, imported from the repository root; a package, so that no other `tests` goes first."""
