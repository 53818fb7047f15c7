"""Training data: lists of clips, tracked faces and speech features on disk."""
