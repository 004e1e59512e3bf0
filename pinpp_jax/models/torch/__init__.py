"""Weights from and to PyTorch: files, names, import and export.

There are no networks here. torch itself is imported only to read a `.pth` file.
"""
