"""The public name of the files of torch weights."""

from pinpp_jax.models.torch.files import read_file, write_file

__all__ = ['read_file', 'write_file']
