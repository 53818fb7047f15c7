"""The face LDM: autoencoder, text tokens, U-Net and few-step sampling."""
