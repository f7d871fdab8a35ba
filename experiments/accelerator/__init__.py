"""What this project's code reaches on an accelerator, and the campaign that compares outer methods there."""
