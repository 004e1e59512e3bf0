"""The public name of the import of torch weights."""

from pinpp_jax.models.torch.importer import (
  backbone_variables,
  encoder_variables,
  variables,
)

__all__ = ['backbone_variables', 'encoder_variables', 'variables']
