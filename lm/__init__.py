"""The bridge: the paper's transformers, trained by the scheduler and the outer optimizers of `toybench`."""
