"""TCCP: the face that is missing in a video, from speech and an identity."""
