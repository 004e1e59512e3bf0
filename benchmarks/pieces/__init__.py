"""Single operations and functions, each against its alternative."""
