"""The commands of `python -m lm`, one module each."""
