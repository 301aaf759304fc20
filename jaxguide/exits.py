"""Exit codes of the command lines."""

# One line says what is wrong; the same command will fail again.
MISTAKE = 2
# EX_TEMPFAIL of sysexits.h: not finished, the same command carries on.
UNFINISHED = 75
# What a shell reports for a program that Ctrl-C has ended: 128 + SIGINT.
INTERRUPTED = 130
