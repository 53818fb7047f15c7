"""Judges that a generated video never trained against: sync experts."""
