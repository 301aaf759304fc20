"""Bad input by the hundred: `python -m tests.fuzz --seed 0`.

Every command meets words, fields of configs and files from grammars of what people get
wrong. The commands are imported once; every case runs in a fork.
"""
