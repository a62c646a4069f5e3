"""Downloads that resume, and that are checked against a published checksum."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxmeta.display import progress_bar
from jaxmeta.locks import waiting


class Remote(NamedTuple):
    """A published file."""

    name: str
    """Name of the file."""
    megabytes: float
    """Size of the file."""
    url: str
    """Address of the file, or of a page that leads to it if there is no checksum."""
    checksum: str | None = None
    """Published `md5:...` or `sha256:...`. A file without one is not downloaded."""

    def __str__(self) -> str:
        return f"{self.name} ({self.megabytes:g} MB) from {self.url}"


def fetch(remote: Remote, folder: Path, progress: bool = True) -> Path:
    """Downloads a file and checks it.

    A partial download stays in `<name>.part`. The next call resumes it. Another process that asks for the same file
    waits, and gets the file when it is there.

    Args:
        remote: file to download.
        folder: folder to download to.
        progress: whether to show a progress bar.

    Returns:
        The path of the file.

    Raises:
        ConnectionError: if the download fails. The same call resumes it.
        ValueError: if the file is not the published one. A downloaded file is then deleted.
    """
    import pooch

    kind, _, digest = (remote.checksum or "").partition(":")
    target = folder / remote.name
    if not target.exists():
        try:
            with waiting(folder / f"{remote.name}.lock", f"fetches {remote.name}", progress):
                if not target.exists():
                    return _fetch(remote, target, kind, digest, progress)
        except OSError as error:
            raise ConnectionError(f"could not fetch {remote.url} into {folder}: {error}") from error
    if pooch.file_hash(str(target), alg=kind) != digest:
        raise ValueError(f"{target} is not the published file. It was left as it is: move it away")
    return target


def _fetch(remote: Remote, target: Path, kind: str, digest: str, progress: bool) -> Path:
    """Downloads a file that no other process downloads, checks it, and puts it in its place."""
    import pooch

    partial = target.with_name(f"{target.name}.part")
    _resume(remote, partial, progress)
    _tag_of(partial).unlink(missing_ok=True)
    found = pooch.file_hash(str(partial), alg=kind)
    if found != digest:
        partial.unlink()
        raise ValueError(f"{remote.url} is not the published file: its {kind} is {found}, not {digest}")
    os.replace(partial, target)
    return target


def _resume(remote: Remote, partial: Path, progress: bool) -> None:
    """Downloads the missing rest of a file and appends it, or all of it if the server has another file by now."""
    import requests

    have, tag = partial.stat().st_size if partial.exists() else 0, _tag_of(partial)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.exists():
            headers["If-Range"] = tag.read_text(encoding="latin1")
    with requests.get(remote.url, headers=headers, stream=True, timeout=60) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the file is complete, and the checksum decides
        response.raise_for_status()
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"  # some servers do not obey
        if response.status_code != requests.codes.partial_content:
            have = 0
        elif encoded or not response.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-"):
            partial.unlink()  # a part of the encoded file, or another part, fits to nothing
            raise ConnectionError("the server sent another part than the one that was asked for")
        _keep(tag, _version_of(response.headers))
        length = None if encoded else response.headers.get("Content-Length")
        total = have + int(length) if length else None
        most = int(1.1e6 * remote.megabytes) + (1 << 20)  # sizes are published in rounded megabytes of either kind
        bar = progress_bar(f"Fetching {partial.stem}", total, "B", initial=have, unit_scale=True, shown=progress)
        with bar, open(partial, "ab" if have else "wb") as file:
            for chunk in response.iter_content(1 << 16):
                if file.tell() + len(chunk) > most:
                    file.truncate(0)
                    raise ConnectionError(f"it sends more than the {remote.megabytes:g} MB that are published")
                file.write(chunk)
                bar.update(len(chunk))
            size = file.tell()
    if total is not None and size != total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")


def _tag_of(partial: Path) -> Path:
    """Returns the file with the server's mark of the version that is downloaded."""
    return partial.with_name(f"{partial.name}.tag")


def _version_of(headers: Any) -> str:
    """Returns what tells a version of a file from another, for `If-Range`, which takes no weak tags."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _keep(path: Path, text: str) -> None:
    """Makes a file hold a text, or removes it if there is none."""
    if text:
        path.write_text(text, encoding="latin1")
    else:
        path.unlink(missing_ok=True)
