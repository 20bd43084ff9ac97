"""One file from the hub: whole and checked, or kept as far as it came; every refusal in one line."""

import errno
import hashlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_server import Fault, Hub, stop
from regstream.hub import fetch as module
from regstream.hub.errors import HubError
from regstream.hub.fetch import evict, fetch, is_cached, occupies_disk, read_prefix, verify_digest
from regstream.hub.repository import HubFile, open_repository

SIZE = 5_000_000
LFS = "GET /lfs/.*"
WEIGHTS = random.Random(0).randbytes(SIZE)


def unwatched(num_bytes: int) -> None:
    """ProgressState nothing."""


class Ended(Exception):
    """The process has other things to do."""


def until(limit: int) -> Callable[[int], None]:
    """A watch that ends the transfer at so many bytes."""

    def watch(num_bytes: int) -> None:
        if num_bytes >= limit:
            raise Ended

    return watch


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of which a small file has many."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture
def file(hub: Hub, folder: Path) -> HubFile:
    hub.add("org/model", folder)
    return open_repository("org/model", None).files["model.safetensors"]


def is_right(file: HubFile) -> bool:
    return file.path.is_symlink() and file.path.read_bytes() == WEIGHTS


def ranges(hub: Hub) -> list[str | None]:
    return [request.range for request in hub.asked(LFS)]


def test_a_listing_tells_sizes_and_digests_before_anything_is_fetched(hub: Hub, file: HubFile) -> None:
    assert (file.size, file.digest) == (SIZE, hashlib.sha256(WEIGHTS).hexdigest())
    assert hub.asked("GET .*safetensors") == []
    assert not is_cached(file)


def test_a_file_comes_into_the_clients_own_cache(hub: Hub, file: HubFile, cache: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    told: list[int] = []
    fetch(file, told.append)
    assert is_right(file)
    assert told == sorted(told)
    assert hub.sent[hub.asked(LFS)[0].path] == SIZE
    assert Path(str(try_to_load_from_cache("org/model", "model.safetensors", revision=file.commit))) == file.path
    assert [path.name for path in file.blob.parent.iterdir() if path.stat().st_size > 100] == [file.digest]


def test_a_token_goes_to_the_hub_and_not_to_where_it_sends_one(
    hub: Hub, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.requests.clear()
    fetch(file, unwatched)
    assert {request.token for request in hub.asked(".* /org/.*")} == {"secret"}
    assert {request.token for request in hub.asked(LFS)} == {None}


def test_a_cut_connection_is_gone_on_with(hub: Hub, file: HubFile, impatient: list[float]) -> None:
    hub.faults = [Fault(LFS, times=3, cut_after=1_000_000)]
    fetch(file, unwatched)
    assert is_right(file)
    assert hub.sent.total() < SIZE + 400_000  # what was in flight when the connection went
    assert len(ranges(hub)) == 4


def test_an_ended_transfer_is_gone_on_with(hub: Hub, file: HubFile) -> None:
    with pytest.raises(Ended):
        fetch(file, until(2_000_000))
    assert occupies_disk(file)
    assert not is_cached(file)
    fetch(file, unwatched)
    assert is_right(file)
    assert ranges(hub)[0] is None
    assert ranges(hub)[1] is not None
    assert int(str(ranges(hub)[1]).removeprefix("bytes=").rstrip("-")) >= 1_900_000


def test_a_server_that_knows_no_ranges_sends_all_again(hub: Hub, file: HubFile) -> None:
    with pytest.raises(Ended):
        fetch(file, until(2_000_000))
    hub.faults = [Fault(LFS, ignores_range=True)]
    fetch(file, unwatched)
    assert is_right(file)


def test_what_was_kept_and_damaged_is_fetched_anew(hub: Hub, file: HubFile) -> None:
    with pytest.raises(Ended):
        fetch(file, until(2_000_000))
    (partial,) = file.blob.parent.glob(f"{file.digest}.*")
    partial.write_bytes(bytes(partial.stat().st_size))
    fetch(file, unwatched)
    assert is_right(file)
    assert ranges(hub)[-1] is None


@pytest.mark.parametrize("num_bytes", [SIZE, SIZE + 5])
def test_what_was_kept_may_be_as_long_as_the_file_or_longer(hub: Hub, file: HubFile, num_bytes: int) -> None:
    file.blob.with_name(f"{file.digest}.regstream.incomplete").write_bytes(bytes(num_bytes))
    fetch(file, unwatched)
    assert is_right(file)


def test_other_bytes_than_announced_never_show_in_the_cache(hub: Hub, file: HubFile) -> None:
    hub.faults = [Fault(LFS, garbled=True)]
    with pytest.raises(HubError, match=rf"org/model: model.safetensors: the download has .* announced {file.digest}"):
        fetch(file, unwatched)
    assert not occupies_disk(file)
    fetch(file, unwatched)
    assert is_right(file)


def test_asked_to_wait_it_waits(hub: Hub, file: HubFile, impatient: list[float]) -> None:
    hub.faults = [Fault(LFS, times=2, status=429, headers={"Retry-After": "7"})]
    fetch(file, unwatched)
    assert is_right(file)
    assert impatient == [8, 8]


def test_an_error_of_the_hubs_own_is_waited_out(hub: Hub, file: HubFile, impatient: list[float]) -> None:
    hub.faults = [Fault(LFS, times=3, status=502)]
    fetch(file, unwatched)
    assert is_right(file)
    assert impatient == [1, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (Fault("HEAD .*", 99, status=404, code="EntryNotFound"), "the hub has no such file"),
        (Fault(LFS, 99, status=404), "the hub has no such file"),
        (Fault(LFS, 99, status=401), "the hub refuses access (401): no token is set; set HF_TOKEN"),
        (Fault(LFS, 99, status=403), "the hub refuses access (403): no token is set; set HF_TOKEN"),
        (Fault(LFS, 99, status=429, headers={"Retry-After": "1"}), "the hub still limits requests (429)"),
        (Fault(LFS, 99, status=503), "the hub answers with status 503; what was transferred is kept"),
        (Fault(LFS, 99, cut_after=0), "the hub cannot be reached ("),
    ],
)
def test_every_refusal_is_one_line(hub: Hub, file: HubFile, fault: Fault, line: str, impatient: list[float]) -> None:
    hub.faults = [fault]
    with pytest.raises(HubError) as caught:
        fetch(file, unwatched)
    assert str(caught.value).startswith(f"org/model: model.safetensors: {line}")
    assert "\n" not in str(caught.value)
    hub.faults = []
    fetch(file, unwatched)
    assert is_right(file)


def test_no_network_is_told_as_such(hub: Hub, file: HubFile, impatient: list[float]) -> None:
    stop(hub)
    with pytest.raises(HubError, match=r"the hub cannot be reached \(ConnectError: .*rerun the command to continue"):
        fetch(file, unwatched)


def test_a_full_disk_is_told_as_the_disks(hub: Hub, file: HubFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(num_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fetch(file, full)
    assert caught.value.errno == errno.ENOSPC


def test_two_that_fetch_the_same_fetch_it_once(hub: Hub, file: HubFile) -> None:
    pause = threading.Event()
    hub.faults = [Fault(LFS, pause=pause)]
    others = [threading.Thread(target=fetch, args=(file, unwatched)) for _ in range(2)]
    for other in others:
        other.start()
    pause.set()
    for other in others:
        other.join()
    assert is_right(file)
    assert len(hub.asked(LFS)) == 1


def test_let_go_of_nothing_is_left_but_what_another_revision_shows(hub: Hub, file: HubFile, folder: Path) -> None:
    fetch(file, unwatched)
    (folder / "config.json").write_text('{"other": 1}')
    hub.add("org/model", folder)
    other = open_repository("org/model", None).files["model.safetensors"]
    assert other.blob == file.blob
    fetch(other, unwatched)
    evict(file)
    assert not file.path.exists()
    assert is_right(other)
    evict(other)
    assert not occupies_disk(other)
    assert len(hub.asked(LFS)) == 1


def test_the_start_of_a_file_is_all_that_is_read_of_it(hub: Hub, file: HubFile) -> None:
    for num_bytes in (8, 300_000, SIZE, SIZE + 100):
        assert read_prefix(file, num_bytes)[:num_bytes] == WEIGHTS[:num_bytes]
    assert ranges(hub) == [f"bytes=0-{end}" for end in (131_071, 299_999, SIZE - 1, SIZE - 1)]


def test_the_start_comes_from_a_server_that_knows_no_ranges(hub: Hub, file: HubFile) -> None:
    hub.faults = [Fault(LFS, ignores_range=True)]
    assert read_prefix(file, 8) == WEIGHTS[:131_072]


def test_a_file_that_the_hub_gives_only_otherwise_is_named(
    hub: Hub, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1_000_000)
    with pytest.raises(HubError, match=rf"`hf download org/model model.safetensors --revision {file.commit}`"):
        read_prefix(file, 8)


def test_a_cached_file_is_held_against_its_digest(hub: Hub, file: HubFile) -> None:
    fetch(file, unwatched)
    verify_digest(file)
    data = bytearray(WEIGHTS)
    data[SIZE // 2] ^= 1
    file.blob.write_bytes(data)
    with pytest.raises(HubError, match="is damaged: its digest is not the hub's"):
        verify_digest(file)


def test_small_files_are_checked_by_gits_own_digest(hub: Hub, folder: Path) -> None:
    hub.add("org/model", folder)
    config = open_repository("org/model", None).files["config.json"]
    fetch(config, unwatched)
    verify_digest(config)
    assert config.path.read_text() == "{}"
    assert len(str(config.digest)) == 40
    assert module.is_cached(config)
