"""Tests, as a package: others install one of the same name."""
