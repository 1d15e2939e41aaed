"""Datasets of other frameworks. Each module is imported by name, and never by pescador itself.

torch.py    StreamDataset, for PyTorch's DataLoader and what is built on it (extra ``torch``)
keras.py    StreamDataset, for ``fit()`` of Keras (extra ``keras``)
"""
