"""Models of the Hugging Face Hub, kept in its own cache. Safetensors and tokenizers only."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from serving.errors import ModelUnavailable
from serving.models.child import HEARTBEAT_S, Progress

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", re.ASCII)
WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken"]
UNWANTED = ["original/*", "onnx/*", "openvino/*", "metal/*", "consolidated*", "*.onnx*"]


def cached(source: str) -> Path | None:
    """The directory of `source` in the cache if all its weights are there. Asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, revision = _parts(source)
    try:
        found = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return None
    return Path(found) if _whole(Path(found)) else None


def download(source: str, progress: Progress) -> Path:
    """Fetch what the cache lacks of `source`. Raises ModelUnavailable."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.errors import OfflineModeIsEnabled as Offline

    repo, revision = _parts(source)
    progress(f"{source}: asking the Hub")
    try:
        with _heartbeat(source, _cache_of(repo), progress):
            path = Path(
                snapshot_download(
                    repo, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED
                )
            )
    except HfHubHTTPError as exc:
        raise _refused(source, exc) from exc
    except (LocalEntryNotFoundError, Offline, OSError) as exc:
        raise ModelUnavailable(
            f"{source} is not in the local cache ({_cache_of(repo)}) and the Hub cannot be "
            f"reached: no network. Connect, or run `hf download {repo}` where there is one, copy "
            "that cache here; or give the path of a local directory"
        ) from exc
    if not _whole(path):
        raise ModelUnavailable(
            f"{source} has no config.json with safetensors weights. Older formats run code when "
            "they are loaded and are refused; choose a repository that has safetensors"
        )
    return path


def _parts(source: str) -> tuple[str, str | None]:
    match = HUB_ID.fullmatch(source)
    assert match is not None, source
    return match["repo"], match["revision"]


def _whole(directory: Path) -> bool:
    """Whether config and every shard that the index names are there."""
    if not (directory / "config.json").is_file():
        return False
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((directory / shard).is_file() for shard in shards)
    return any(directory.glob("*.safetensors"))


def _cache_of(repo: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE, "models--" + repo.replace("/", "--"))


def _refused(source: str, exc: HfHubHTTPError) -> ModelUnavailable:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(exc, GatedRepoError):
        return ModelUnavailable(
            f"{source} is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN"
        )
    if isinstance(exc, RepositoryNotFoundError):
        return ModelUnavailable(
            f"the Hub has no repository {source}, or it is private: check the spelling, or set "
            "HF_TOKEN to a token that may read it"
        )
    return ModelUnavailable(f"the Hub refused {source}: {exc}. Try again later, or set HF_TOKEN")


class _heartbeat:
    """Reports the size of what has arrived while the block runs."""

    def __init__(self, source: str, cache: Path, progress: Progress) -> None:
        self._source = source
        self._cache = cache
        self._progress = progress
        self._done = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._done.wait(HEARTBEAT_S):
            blobs = self._cache.glob("blobs/*")
            mib = sum(path.stat().st_size for path in blobs if path.is_file()) / 2**20
            self._progress(f"{self._source}: {mib:.0f} MiB here ({time.monotonic() - began:.0f} s)")
