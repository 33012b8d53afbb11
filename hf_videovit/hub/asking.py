"""Questions to the Hub, and in plain words why it did not answer."""

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

# What a refusal means.
REASONS = {
    401: "the Hub knows no valid token (`hf auth login`, or HF_TOKEN).",
    403: "the token may not write here.",
    412: "somebody else has committed in the meantime.",
    429: "the Hub asks for fewer requests.",
}


class PublishingError(RuntimeError):
    """The Hub refused, or could not be reached. The repo is as it was before."""


def check_id(repo_id: str, argument: str = "repo_id") -> None:
    """ValueError, naming the argument, for what is no id of a repo."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"`{argument}` must be a Hub id such as 'owner/name', got {repo_id!r}") from error


def asking(repo_id: str, question: Callable[[], Answer], *passed_on: type[Exception]) -> Answer:
    """What the Hub answers; [`PublishingError`] in plain words if it does not."""
    try:
        return question()
    except LocalTokenNotFoundError as error:
        raise PublishingError(f"{repo_id}: {REASONS[401]}") from error
    except LocalEntryNotFoundError as error:  # says "not found", and means that the Hub could not be asked
        raise PublishingError(f"{repo_id}: the Hub could not be reached. The repo is as it was; try again.") from error
    except passed_on:
        raise
    except Exception as error:
        cause: BaseException = error
        if type(error) is RuntimeError and error.__cause__ is not None:  # what stopped one of many uploads
            cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise PublishingError(f"{repo_id}: {_reason(cause)} The repo is as it was; try again.") from error
        if isinstance(cause, OSError) or is_transport_error(cause):
            raise PublishingError(
                f"{repo_id}: the connection to the Hub failed ({type(cause).__name__}). The repo is as it was; the "
                "same command goes on with the files that are missing."
            ) from error
        raise


def is_transport_error(error: BaseException) -> bool:
    """Whether the HTTP client of `huggingface_hub`, whichever it is, raised an error."""
    client = type(get_session()).__module__.partition(".")[0]
    return type(error).__module__.partition(".")[0] == client


def _reason(error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else 0
    if isinstance(error, RevisionNotFoundError):
        return "there is no such branch."
    if isinstance(error, RepositoryNotFoundError) and status != 401:
        return "there is no such repo, or the token may not see it."
    if status >= 500:
        return f"the Hub is not well (status {status})."
    return REASONS.get(status, f"the Hub refused (status {status}).")
