"""TH-PAD: talking heads with probabilistic audio-to-visual diffusion priors (arXiv 2212.04248)."""
