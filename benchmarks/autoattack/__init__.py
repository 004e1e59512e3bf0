"""AutoAttack against PyTorch's: speed, agreement of results, precision."""
