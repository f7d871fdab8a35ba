"""Studies on the toy and the language model, one question a file."""
