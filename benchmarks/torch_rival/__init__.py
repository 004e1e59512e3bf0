"""The opponent: the reference's networks, losses and steps in PyTorch."""
