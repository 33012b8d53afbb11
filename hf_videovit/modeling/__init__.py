"""Models, configurations and processors: what travels to a model repository."""

if __name__ != "hf_videovit.modeling":
    raise ImportError(
        f"`{__name__}` at the root of the repository is a link for readers; the package is `hf_videovit.modeling`."
    )
