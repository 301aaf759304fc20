"""Sampling from configs: pictures and sets; `python -m jaxguide.sample`."""
