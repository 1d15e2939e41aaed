"""Datasets of other frameworks. Each module is imported by name, and never by pescador itself.

torch.py    StreamDataset, for PyTorch's DataLoader and what is built on it (extra ``torch``)
keras.py    StreamDataset, for ``fit()`` of Keras (extra ``keras``)

JAX needs none. On a CPU, ``jax.device_put`` shares the memory of arrays that came from a shm or zmq worker:
those of items of 4 kB or more are aligned as JAX needs it. It converts int64 to int32 and float64 to float32
unless ``jax_enable_x64`` is set.
"""
