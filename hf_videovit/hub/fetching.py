"""Download of the weights and the configuration of a repo on the Hub, without its code."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from .asking import is_transport_error
from .publishing import weight_files


WEIGHTS = ["config.json", "model*.safetensors", "model.safetensors.index.json"]


def fetch_weights(repo_id: str, revision: str | None = None) -> Path:
    """
    Download `config.json` and the safetensors of a repo. Code and pickled files are not downloaded.

    Args:
        repo_id (`str`):
            The repo, such as `"OpenGVLab/VideoMAEv2-Base"`.
        revision (`str`, *optional*):
            Branch, tag or commit.

    Returns:
        `Path`: the folder in the cache.

    Raises:
        ValueError: the repo or revision does not exist, or has no complete safetensors.
        ConnectionError: the Hub cannot be reached, and the cache is incomplete.
    """
    try:
        validate_repo_id(repo_id)
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=WEIGHTS))
    except HFValidationError as error:
        raise ValueError(f"`repo_id` must be a Hub id such as 'owner/name', got {repo_id!r}") from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"The Hub cannot be reached, and {repo_id} is not complete in the cache") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500:
            raise ConnectionError(
                f"The Hub returned a server error ({status}); {repo_id} was not downloaded"
            ) from error
        raise ValueError(f"{repo_id} at {revision or 'main'} is not available on the Hub ({status})") from error
    except Exception as error:
        if not is_transport_error(error):
            raise
        raise ConnectionError(f"The connection to the Hub failed; {repo_id} was not downloaded") from error
    try:
        weight_files(folder)
    except ValueError as error:
        raise ValueError(f"{repo_id} has no complete safetensors: {error}") from error
    return folder
