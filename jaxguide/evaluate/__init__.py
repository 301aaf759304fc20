"""Measures of generated images; see docs/evaluation.md."""
