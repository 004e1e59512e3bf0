"""The race: our training step against PyTorch's, each in its own process."""
