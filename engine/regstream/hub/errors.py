"""One-line errors of the hub's client, each with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of whichever HTTP library the client uses
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_token

from regstream.errors import InputError

_RESUMES = "what was transferred is kept; rerun the command to continue"

OFFLINE = "HF_HUB_OFFLINE=1 forbids network access; unset it"
NOT_CACHED = f"not in the cache, and {OFFLINE} or download first"

#: What the client raises about the network and the disk.
CLIENT_ERRORS = (HTTPError, OSError, HFValidationError)


class HubError(InputError):
    """The hub refuses a request, or is unreachable."""


@contextmanager
def hub_error_boundary(what: str) -> Iterator[None]:
    """Turn the client's errors into one line; `what` is the requested object: "org/name@main: config.json".

    Raises:
        HubError: in place of the client's error.
        OSError: the disk refused.
    """
    try:
        yield
    except CLIENT_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the operating system: the client's own have no number
        raise HubError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # The client says "not in the cache" whatever kept it from the hub; the cause is the actual reason.
    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None else error
    match cause:
        case GatedRepoError():
            reason = f"gated on the hub: {_token()}; request access on its page"
        case RepositoryNotFoundError():
            reason = f"not on the hub, or private: {_token()}"
        case RevisionNotFoundError():
            reason = "the hub has no such revision"
        case HfHubHTTPError():
            status = cause.response.status_code
            refused = f"the hub refuses access ({status}): {_token()}"
            limited = f"the hub still limits requests (429) after all retries; {_RESUMES}"
            reasons = {401: refused, 403: refused, 404: "the hub has no such file", 429: limited}
            reason = reasons.get(status, f"the hub answers with status {status}; {_RESUMES}")
        case HFValidationError():
            reason = f"not a valid repository name: {_first_line(cause)}"
        case FileMetadataError():
            reason = f"unexpected answer from the hub: {_first_line(cause)}"
        case OfflineModeIsEnabled():
            reason = NOT_CACHED
        case _:
            reason = f"the hub cannot be reached ({type(cause).__name__}: {_first_line(cause)}); {_RESUMES}"
    return reason


def _token() -> str:
    return "HF_TOKEN has no access to it" if get_token() else "no token is set; set HF_TOKEN"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
