"""Grids of guidance, judged: `python -m jaxguide.sweep`."""
