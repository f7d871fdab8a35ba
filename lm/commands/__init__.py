"""The commands of `python -m lm`, one a file."""
