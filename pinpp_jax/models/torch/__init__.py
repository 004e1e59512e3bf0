"""Weights from and to PyTorch: files, names, import and export.

Nothing here is a network; torch itself is imported only to read a `.pth` file.
"""
