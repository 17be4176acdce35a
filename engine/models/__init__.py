"""Model families: configuration, the decoder, and the loading of checkpoints."""
