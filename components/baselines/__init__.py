"""Classical text-to-text baselines: what a model has to beat, computed and never typed in."""
