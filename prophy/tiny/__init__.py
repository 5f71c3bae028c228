"""The embedded model's own parts: autoencoder, text encoder, transformer, branch, vision-language model."""
