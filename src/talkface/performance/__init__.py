"""Speech to FaceMotion: lips from the audio, head and gaze from a diffusion prior, blinks from a clock."""
