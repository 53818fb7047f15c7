"""Pictures, sound and video read and written in constant memory; all times are in seconds."""
