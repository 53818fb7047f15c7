"""Speech to FaceMotion: lips from the audio, head, brows and gaze from a diffusion prior, blinks from a clock."""
