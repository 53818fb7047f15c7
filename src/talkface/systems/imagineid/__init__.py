"""FaceChain-ImagineID: speech alone to imagined people who talk."""
