"""Speech: mel spectrogram, content features at 50 Hz, pitch and voice activity."""
