"""Training and evaluation: data streams, augmentation, tasks, the loop."""

if __name__ != "hf_videovit.training":
    raise ImportError(
        f"`{__name__}` at the root of the repository is a link for readers; the package is `hf_videovit.training`."
    )
