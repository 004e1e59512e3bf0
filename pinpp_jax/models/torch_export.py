"""The public name of the export to torch weights."""

from pinpp_jax.models.torch.exporter import encoder_tensors, tensors
from pinpp_jax.models.torch.files import write_file

__all__ = ['encoder_tensors', 'tensors', 'write_file']
