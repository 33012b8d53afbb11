"""Requests to the Hub, with readable errors."""

from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import get_session
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id


Answer = TypeVar("Answer")

# HTTP status codes in words.
REASONS = {
    401: "no valid token. Run `hf auth login` or set HF_TOKEN.",
    403: "the token has no write access.",
    412: "another commit was made in the meantime.",
    429: "too many requests. Wait before you try again.",
}


class PublishingError(RuntimeError):
    """The Hub rejected a request or could not be reached. The repo is unchanged."""


def check_id(repo_id: str, argument: str = "repo_id") -> None:
    """
    Check the form of a repo id.

    Args:
        repo_id (`str`):
            Id to check, `"name"` or `"owner/name"`.
        argument (`str`, *optional*, defaults to `"repo_id"`):
            Name of the caller's argument, for the error.

    Raises:
        ValueError: `repo_id` is not a Hub id.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"`{argument}` must be a Hub id such as 'owner/name', got {repo_id!r}") from error


def asking(repo_id: str, question: Callable[[], Answer], *passed_on: type[Exception]) -> Answer:
    """
    Send a request to the Hub and turn its errors into [`PublishingError`].

    Args:
        repo_id (`str`):
            Repo that the request is about, for the error.
        question (`Callable[[], Answer]`):
            Function without arguments that sends the request.
        passed_on (`type[Exception]`):
            Exceptions that are raised unchanged.

    Returns:
        The result of `question`.

    Raises:
        PublishingError: the Hub rejected the request, or could not be reached.
    """
    try:
        return question()
    except LocalTokenNotFoundError as error:
        raise PublishingError(f"{repo_id}: {REASONS[401]}") from error
    except LocalEntryNotFoundError as error:  # raised as "not found" if there is no connection
        raise PublishingError(f"{repo_id}: the Hub could not be reached. The repo is unchanged; try again.") from error
    except passed_on:
        raise
    except Exception as error:
        cause: BaseException = error
        if type(error) is RuntimeError and error.__cause__ is not None:  # the error of one of several uploads
            cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise PublishingError(f"{repo_id}: {_reason(cause)} The repo is unchanged; try again.") from error
        if isinstance(cause, OSError) or is_transport_error(cause):
            raise PublishingError(
                f"{repo_id}: the connection to the Hub failed ({type(cause).__name__}). The repo is unchanged; run "
                "the same command again to upload the missing files."
            ) from error
        raise


def is_transport_error(error: BaseException) -> bool:
    """
    Whether an error comes from the HTTP client that `huggingface_hub` uses.

    Args:
        error ([`BaseException`]):
            Any exception.

    Returns:
        `bool`: `True` for an error of the HTTP client.
    """
    client = type(get_session()).__module__.partition(".")[0]
    return type(error).__module__.partition(".")[0] == client


def _reason(error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else 0
    if isinstance(error, RevisionNotFoundError):
        return "the branch does not exist."
    if isinstance(error, RepositoryNotFoundError) and status != 401:
        return "the repo does not exist, or the token has no read access."
    if status >= 500:
        return f"the Hub returned a server error ({status})."
    return REASONS.get(status, f"the Hub rejected the request ({status}).")
