"""Every member of an archive is read or refused by name, links end, and a cache knows its files."""

import io
import os
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxmeta import data
from jaxmeta.data.archives import Files, walk


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(level):
    """A picture of one gray. All of them have files of one size."""
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(file, "BMP")
    return file.getvalue()


def put(root, levels):
    for name, level in levels.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(level))


def read(path):
    """The gray of each picture, by class."""
    found = data.load_examples("folder", path, split="all", progress=False).train
    pairs = zip(found.labels, found.inputs[:, 0, 0, 0].tolist(), strict=True)
    return sorted((found.names[label], level) for label, level in pairs)


LEVELS = {f"{name}/{number}.bmp": 10 * row + number for row, name in enumerate("abc") for number in range(3)}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_with_links_is_its_folder(form, mode, tmp_path):
    """Hard links, also several to one file, symbolic links in a chain, long names and holes."""
    root = tmp_path / "mine"
    put(root, LEVELS)
    for name in list(LEVELS)[:4]:
        os.link(root / name, root / name.replace(".bmp", "-again.bmp"))
    os.link(root / "a/0.bmp", root / "c/zero.bmp")
    (root / "b/last.bmp").symlink_to("../c/zero.bmp")
    (root / "a/later.bmp").symlink_to("../b/last.bmp")
    put(root, {f"c/{'é' * 110}.bmp": 77})
    path = tmp_path / "mine.tar"
    path = path if mode == "w" else path.with_name(f"mine.tar.{mode[2:]}")
    with tarfile.open(path, mode, format=form) as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
        archive.add(root, "mine")
    assert read(path) == read(root) and len(read(path)) == 9 + 4 + 1 + 2 + 1
    files = Files([path])
    with files.open("mine/a/later.bmp") as file:
        assert file.read() == picture(0)
    assert len(list(files.read({"mine/a/0.bmp", "mine/c/zero.bmp", "mine/c/2.bmp"}))) == 3


def test_a_sparse_member_is_read(tmp_path):
    """As GNU tar writes a file with holes: the map of its parts, and then these."""
    content = picture(5)
    tail = len(content) - 40  # the rest is a hole
    info = tarfile.TarInfo("a/0.bmp")
    entry = bytearray(tarfile.TarInfo(info.name).tobuf(tarfile.GNU_FORMAT))
    entry[156:157] = tarfile.GNUTYPE_SPARSE
    entry[124:136] = b"%011o\0" % 40
    entry[386:410] = b"%011o\0" % tail + b"%011o\0" % 40
    entry[483:495] = b"%011o\0" % len(content)
    entry[148:156] = b" " * 8
    entry[148:156] = b"%06o\0 " % sum(entry[:512])
    (tmp_path / "x.tar").write_bytes(bytes(entry) + content[tail:].ljust(512, b"\0") + bytes(1024))
    with Files([tmp_path / "x.tar"]).open("a/0.bmp") as file:
        assert file.read() == bytes(tail) + content[tail:]


def test_a_zip_with_links_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.mkdir("a")
        for name, level in LEVELS.items():
            archive.writestr(name, picture(level))
        link = zipfile.ZipInfo("a/link.bmp")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "../c/2.bmp")
    assert read(tmp_path / "mine.zip") == sorted([(name[0], level) for name, level in LEVELS.items()] + [("a", 22)])


def refused_tar(path, kind, target=""):
    with tarfile.open(path, "w") as archive:
        for name, level in LEVELS.items():
            info = tarfile.TarInfo(name)
            info.size = len(picture(level))
            archive.addfile(info, io.BytesIO(picture(level)))
        info = tarfile.TarInfo("c/odd.bmp")
        info.type, info.linkname = kind, target
        archive.addfile(info)


def refused_zip(path, kind, target=""):
    with zipfile.ZipFile(path, "w") as archive:
        for name, level in LEVELS.items():
            archive.writestr(name, picture(level))
        info = zipfile.ZipInfo("c/odd.bmp")
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, target)


REFUSED = {
    "symbolic link outside": (refused_tar, (tarfile.SYMTYPE, "../../secret.bmp"), "no file in the archive"),
    "absolute link": (refused_tar, (tarfile.SYMTYPE, "/etc/passwd"), "no file in the archive"),
    "link to itself": (refused_tar, (tarfile.SYMTYPE, "odd.bmp"), "no file in the archive"),
    "link to a folder": (refused_tar, (tarfile.SYMTYPE, "../a"), "is a symbolic link to '../a'"),
    "hard link to nothing": (refused_tar, (tarfile.LNKTYPE, "c/9.bmp"), "is a hard link to 'c/9.bmp'"),
    "hard link outside": (refused_tar, (tarfile.LNKTYPE, "../x"), "is a hard link to '../x'"),
    "pipe": (refused_tar, (tarfile.FIFOTYPE,), "is a pipe, which is not read"),
    "device": (refused_tar, (tarfile.BLKTYPE,), "is a device, which is not read"),
    "unknown": (refused_tar, (b"M",), "is of an unknown type b'M', which is not read"),
    "link in a zip": (refused_zip, (stat.S_IFLNK, "../a"), "is a symbolic link to '../a'"),
    "socket in a zip": (refused_zip, (stat.S_IFSOCK,), "is a device or a pipe, which is not read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_members_are_refused_by_name(case, tmp_path, cache):
    put(tmp_path, {"secret.bmp": 9, "9.bmp": 9})
    write, what, message = REFUSED[case]
    path = tmp_path / f"mine.{'tar' if write is refused_tar else 'zip'}"
    write(path, *what)
    with pytest.raises(ValueError, match=rf"{path}: c/odd.bmp .*{message}"):
        read(path)
    assert not cache.exists()


# Folders with links, and with what is no file.


def test_a_pipe_in_a_folder_is_named(tmp_path):
    put(tmp_path / "mine", LEVELS)
    os.mkfifo(tmp_path / "mine" / "b" / "pipe.bmp")
    with pytest.raises(ValueError, match="b/pipe.bmp is a device, a pipe or a socket"):
        read(tmp_path / "mine")


def test_a_label_of_a_tar_is_no_file(tmp_path):
    refused_tar(tmp_path / "mine.tar", b"V")
    assert len(read(tmp_path / "mine.tar")) == len(LEVELS)


def test_links_to_folders_above_are_left_out(tmp_path):
    root = tmp_path / "mine"
    put(root, LEVELS)
    for number in range(4):
        (root / f"latest{number}").symlink_to(".")
        (root / "a" / f"up{number}").symlink_to("../..")
    put(tmp_path / "store", {"one/0.bmp": 70, "two/0.bmp": 80})
    (tmp_path / "store" / "one" / "other").symlink_to("../two")
    (tmp_path / "store" / "two" / "other").symlink_to("../one")
    (root / "d").symlink_to(tmp_path / "store" / "one")
    places = {folder.relative_to(root).as_posix() for folder, _, _ in walk(root)}
    assert places == {".", "a", "b", "c", "d", "d/other"}
    expected = [(name[0], level) for name, level in LEVELS.items()] + [("d", 70), ("d/other", 80)]
    assert read(root) == sorted(expected)


def test_many_links_to_one_folder_are_named(tmp_path):
    """Without a limit these are 3 ** 12 ways."""
    for number in range(12):
        (tmp_path / f"{number}").mkdir()
        for letter in "xyz":
            (tmp_path / f"{number}" / letter).symlink_to(f"../{number + 1}")
    (tmp_path / "12").mkdir()
    with pytest.raises(ValueError, match=r"links lead to .* in more than 16 ways"):
        Files([tmp_path]).names  # noqa: B018 (it walks)


def test_a_deep_folder_is_read(tmp_path):
    put(tmp_path / "mine", {"/".join("abcdefghijkl") + "/0.bmp": 3, "z/0.bmp": 4})
    assert read(tmp_path / "mine") == [("a/b/c/d/e/f/g/h/i/j/k/l", 3), ("z", 4)]


# Caches.


def exchange(first, second):
    """Two files or folders exchange their names."""
    first.rename(first.with_name("kept"))
    second.rename(first)
    first.with_name("kept").rename(second)


def exchange_contents(root):
    first, second = root / "a/0.bmp", root / "b/0.bmp"
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


CHANGES = {
    "contents": exchange_contents,
    "files": lambda root: exchange(root / "a/0.bmp", root / "b/0.bmp"),
    "folders": lambda root: exchange(root / "a", root / "b"),
    "a link": lambda root: exchange(root / "c/link.bmp", root / "c/other.bmp"),
}


def same_times(root):
    for path in root.rglob("*"):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_sees_what_size_and_time_do_not_tell(change, tmp_path, cache):
    root = tmp_path / "mine"
    put(root, {name: 20 * number for number, name in enumerate(LEVELS)})
    put(tmp_path, {"x.bmp": 201, "y.bmp": 202})
    (root / "c/link.bmp").symlink_to(tmp_path / "x.bmp")
    (root / "c/other.bmp").symlink_to(tmp_path / "y.bmp")
    same_times(tmp_path)
    before = read(root)
    assert read(root) == before and len(list(cache.iterdir())) == 1
    CHANGES[change](root)
    if change == "contents":
        same_times(tmp_path)
    shutil.copytree(root, tmp_path / "copy" / "mine")
    assert read(root) == read(tmp_path / "copy" / "mine")
    assert (read(root) == before) == (change == "a link")  # which exchanges two pictures of one class
    for stored in cache.iterdir():
        stored.write_bytes(stored.read_bytes()[:-1])
    assert read(root) == read(tmp_path / "copy" / "mine")


def test_a_cache_sees_the_middle_of_a_tar(tmp_path):
    """And of a tar both of whose ends, size and time are the same."""
    path = tmp_path / "mine.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(200):
            info = tarfile.TarInfo(f"{number:03}/0.bmp")
            info.size = len(picture(number % 2))
            archive.addfile(info, io.BytesIO(picture(number % 2)))
    os.utime(path, ns=(10**18, 10**18))
    before = read(path)
    content = bytearray(path.read_bytes())
    first = content.index(picture(0), 90_000)
    second = content.index(picture(1), first)
    size = len(picture(0))
    content[first : first + size], content[second : second + size] = picture(1), picture(0)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    assert sum(a != b for a, b in zip(before, read(path), strict=True)) == 2


# Long names.


def test_names_of_classes_are_stored_once(tmp_path, cache):
    long = "/".join(3 * ["n" * 250])
    put(tmp_path / "mine", {f"{long}/{number}.bmp": number for number in range(60)} | {"b/0.bmp": 99})
    assert read(tmp_path / "mine")[-1] == (long, 59)
    (stored,) = cache.iterdir()
    assert stored.stat().st_size < 10_000


@pytest.mark.parametrize("kind", ["tar", "zip", "arrays"])
def test_a_very_long_name_is_refused(kind, tmp_path):
    long = "n" * 60_000
    with pytest.raises(ValueError, match=r"names must have up to 1000 characters, got one of 60000"):
        if kind == "arrays":
            data.Examples.of(np.zeros((3000, 2)), [long] * 2999 + ["b"])
        elif kind == "tar":
            with tarfile.open(tmp_path / "mine.tar", "w") as archive:
                for name in (f"{long}/0.bmp", f"{long}/1.bmp", "b/0.bmp"):
                    info = tarfile.TarInfo(name)
                    info.size = len(picture(0))
                    archive.addfile(info, io.BytesIO(picture(0)))
            read(tmp_path / "mine.tar")
        else:
            with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
                for name in (f"{long}/0.bmp", f"{long}/1.bmp", "b/0.bmp"):
                    archive.writestr(name, picture(0))
            read(tmp_path / "mine.zip")
