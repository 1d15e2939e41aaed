"""The order of the gallery: what to read first comes first."""

ORDER = (
    *("noisy_samples", "mixture_of_noise", "buffering", "hierarchical", "several_datasets", "epochs"),
    *("repeatable_validation", "class_balance", "npz_archives", "memory_mapped", "hdf5_zarr", "images"),
    *("sklearn_example", "pytorch_example", "keras_example", "jax_example"),
    *("parallel_streaming", "train_from_disk", "resume", "several_machines"),
)


def key(name):
    """Return the place of a script. One that is not named above raises ValueError, and ends the build."""
    return ORDER.index(name.removesuffix(".py"))
