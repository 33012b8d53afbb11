"""The weights and the configuration of a repo on the Hub, and nothing of it that could run."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from .asking import is_transport_error
from .publishing import weight_files


WEIGHTS = ["config.json", "model*.safetensors", "model.safetensors.index.json"]


def fetch_weights(repo_id: str, revision: str | None = None) -> Path:
    """
    Fetch `config.json` and the safetensors of a repo. Code and pickled files are left where they are.

    Args:
        repo_id (`str`):
            The repo, such as `"OpenGVLab/VideoMAEv2-Base"`.
        revision (`str`, *optional*):
            Branch, tag or commit.

    Returns:
        `Path`: a folder of the cache.

    Raises:
        ValueError: no such repo or revision, or it holds no safetensors.
        ConnectionError: the Hub cannot be reached, and the cache lacks something.
    """
    try:
        validate_repo_id(repo_id)
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=WEIGHTS))
    except HFValidationError as error:
        raise ValueError(f"`repo_id` must be a Hub id such as 'owner/name', got {repo_id!r}") from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"The Hub cannot be reached, and {repo_id} is not whole in the cache") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500:
            raise ConnectionError(f"The Hub is not well (status {status}); {repo_id} was not fetched") from error
        raise ValueError(f"The Hub gives no {repo_id} at {revision or 'main'} (status {status})") from error
    except Exception as error:
        if not is_transport_error(error):
            raise
        raise ConnectionError(f"The connection to the Hub failed; {repo_id} was not fetched") from error
    try:
        weight_files(folder)
    except ValueError as error:
        raise ValueError(f"{repo_id} holds no whole safetensors: {error}") from error
    return folder
