"""AutoAttack against PyTorch's: speed, agreement of verdicts, precision."""
