"""Speech: mel spectrogram, content features at 50 Hz, voice activity."""
