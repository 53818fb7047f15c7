"""Speech to FaceMotion: lips, the motion model, the diffusion prior and blinks."""
