"""Pictures, sound and video in and out: streaming, one timebase in seconds."""
