"""G4G (arXiv 2402.18122): video + new speech -> the same video with the lips in sync."""
