"""Downloads from a loopback server that misbehaves, and archives that are damaged or hostile."""

import hashlib
import io
import random
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from _loopback import reply, serve
from common.download import ATTEMPTS, cached_download, download, extract, find_root, opened
from common.files import UserError

BODY = random.Random(0).randbytes(1_000_000)
HALF = 6 << 16  # whole blocks, so that what has come is what was sent
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server:
    """Answers of one file: `plan` lists what the next requests get, and then the file is served well."""

    def __init__(self, *plan, ranges=True, etag='"v1"', body=BODY):
        self.plan, self.ranges, self.etag, self.body = list(plan), ranges, etag, body
        self.seen = []

    def __call__(self, request):
        self.seen.append((request.path, request.headers.get("Range"), request.headers.get("If-Range")))
        step = self.plan.pop(0) if self.plan else {}
        headers = {"ETag": self.etag} | step.get("headers", {})
        if "status" in step:
            reply(request, step.get("body", b""), step["status"], **headers)
            return
        wanted = request.headers.get("Range")
        if wanted and self.ranges and request.headers["If-Range"] == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
            reply(request, self.body[start:], 206, step.get("cut"), **headers)
        else:
            reply(request, self.body, 200, step.get("cut"), **headers)


@pytest.fixture
def naps(monkeypatch):
    """The seconds for which a download waited between attempts."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_finished_download_is_used_again(tmp_path):
    server = Server()
    with serve(server) as url:
        first = cached_download(f"{url}/data.zip", SHA256, tmp_path)
        assert cached_download(f"{url}/data.zip", SHA256.upper(), tmp_path) == first
        assert cached_download(f"{url}/data.zip", None, tmp_path) == first
        assert cached_download(f"{url}/other/data.zip", None, tmp_path) != first
    assert first.read_bytes() == BODY
    assert [path for path, *_ in server.seen] == ["/data.zip", "/other/data.zip"]
    assert not list(tmp_path.glob("*.part*"))


def test_broken_download_goes_on_where_it_stopped(tmp_path, naps):
    server = Server({"cut": HALF}, {"cut": 2 << 16})
    with serve(server) as url:
        download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
    assert (tmp_path / "data.zip").read_bytes() == BODY
    assert [span for _, span, _ in server.seen] == [None, f"bytes={HALF}-", f"bytes={HALF + (2 << 16)}-"]
    assert server.seen[1][2] == '"v1"'
    assert not list(tmp_path.glob("*.part*"))


def test_a_later_run_resumes_too(tmp_path, naps):
    server = Server({"cut": HALF}, *[{"status": 503}] * ATTEMPTS)
    with serve(server) as url:
        with pytest.raises(UserError, match=rf"answered 503.*{HALF:,} bytes that came are kept in .*\.part"):
            download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
        assert not (tmp_path / "data.zip").exists()
        server.plan.clear()
        download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
    assert server.seen[-1][1] == f"bytes={HALF}-"
    assert (tmp_path / "data.zip").read_bytes() == BODY


def test_server_that_ignores_ranges_starts_over(tmp_path, naps):
    server = Server({"cut": HALF}, ranges=False)
    with serve(server) as url:
        download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
    assert server.seen[1][1] == f"bytes={HALF}-"
    assert (tmp_path / "data.zip").read_bytes() == BODY


def test_file_that_changed_in_between_starts_over(tmp_path, naps):
    with serve(Server({"cut": HALF}, *[{"status": 500}] * ATTEMPTS)) as url, pytest.raises(UserError):
        download(f"{url}/data.zip", tmp_path / "data.zip", None)
    new = BODY[::-1]
    with serve(Server(etag='"v2"', body=new)) as url:
        download(f"{url}/data.zip", tmp_path / "data.zip", None)
    assert (tmp_path / "data.zip").read_bytes() == new


@pytest.mark.parametrize("span", ["bytes 0-999999/1000000", "nonsense"])
def test_wrong_range_is_not_appended(tmp_path, naps, span):
    server = Server({"cut": HALF}, {"status": 206, "body": BODY, "headers": {"Content-Range": span}})
    with serve(server) as url:
        download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
    assert (tmp_path / "data.zip").read_bytes() == BODY


def test_part_that_is_already_whole(tmp_path, naps):
    server = Server({"cut": HALF}, *[{"status": 503}] * ATTEMPTS)
    with serve(server) as url:
        with pytest.raises(UserError):
            download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
        (tmp_path / "data.zip.part").write_bytes(BODY)
        server.plan[:] = [{"status": 416, "headers": {"Content-Range": f"bytes */{len(BODY)}"}}]
        download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
    assert (tmp_path / "data.zip").read_bytes() == BODY


def test_without_a_validator_nothing_is_appended(tmp_path, naps):
    server = Server({"cut": HALF}, etag='W/"weak"')
    with serve(server) as url:
        download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
    assert [span for _, span, _ in server.seen] == [None, None]
    assert (tmp_path / "data.zip").read_bytes() == BODY


def test_busy_server_is_waited_for(tmp_path, naps):
    plan = ({"status": 503}, {"status": 503, "headers": {"Retry-After": "7"}}, {"status": 429})
    with serve(Server(*plan)) as url:
        download(f"{url}/data.zip", tmp_path / "data.zip", SHA256)
    assert naps == [1, 7, 4]
    assert (tmp_path / "data.zip").read_bytes() == BODY


def test_server_that_stays_busy(tmp_path, naps):
    server = Server(*[{"status": 503}] * 100)
    with serve(server) as url, pytest.raises(UserError, match=f"answered 503; tried {ATTEMPTS} times"):
        download(f"{url}/data.zip", tmp_path / "data.zip", None)
    assert len(server.seen) == ATTEMPTS


def test_no_server(tmp_path, naps):
    with serve(Server()) as url:
        pass
    with pytest.raises(UserError, match="connection failed"):
        download(f"{url}/data.zip", tmp_path / "data.zip", None)
    assert len(naps) == ATTEMPTS - 1


def test_missing_file_is_not_tried_again(tmp_path, naps):
    server = Server({"status": 404, "body": b"<html>", "headers": {"Content-Type": "text/html"}})
    with serve(server) as url, pytest.raises(UserError, match=r"answered 404.*Check the address"):
        download(f"{url}/data.zip", tmp_path / "data.zip", None)
    assert (len(server.seen), naps) == (1, [])


def test_web_page_is_no_archive(tmp_path, naps):
    server = Server({"status": 200, "body": b"<html>log in", "headers": {"Content-Type": "text/html; charset=utf-8"}})
    with serve(server) as url, pytest.raises(UserError, match="a web page, expected an archive"):
        download(f"{url}/data.zip", tmp_path / "data.zip", None)
    assert list(tmp_path.iterdir()) == []


def test_wrong_checksum_says_expected_and_found(tmp_path):
    wrong = "0" * 64
    with serve(Server()) as url:
        kept = cached_download(f"{url}/data.zip", None, tmp_path)
        with pytest.raises(UserError, match=f"is {SHA256}, expected {wrong}. They were deleted") as caught:
            cached_download(f"{url}/data.zip", wrong, tmp_path)
    assert "1,000,000 bytes" in str(caught.value)
    assert kept.read_bytes() == BODY, "an earlier good download is not lost"
    assert not list(tmp_path.glob("*.part*"))


def test_google_drive(tmp_path, monkeypatch):
    server = Server()
    with serve(server) as url:
        monkeypatch.setattr("common.download.GOOGLE_DRIVE", url)
        path = cached_download("gdrive:1403EGqz-_x", SHA256, tmp_path)
    assert server.seen[0][0] == "/download?id=1403EGqz-_x&export=download&confirm=t"
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("status", [200, 403, 404])
def test_google_drive_answers_with_a_page(tmp_path, monkeypatch, status):
    page = b"<html><head><title>Google Drive - Quota exceeded</title></head></html>"
    server = Server({"status": status, "body": page, "headers": {"Content-Type": "text/html"}})
    with serve(server) as url, pytest.raises(UserError, match=r"Quota exceeded.*Try again tomorrow"):
        monkeypatch.setattr("common.download.GOOGLE_DRIVE", url)
        cached_download("gdrive:abc", None, tmp_path)


# Archives


def make_zip(path: Path, entries: dict[str, bytes], mode: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, data in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            stream.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, entries: dict[str, bytes], kind: bytes = tarfile.REGTYPE, compression: str = "gz") -> Path:
    with tarfile.open(path, f"w:{compression}") as stream:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, len(data) if kind == tarfile.REGTYPE else 0
            entry.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            stream.addfile(entry, io.BytesIO(data))
    return path


GOOD = {"top/a.json": b"[1]", "top/b/c.sqlite": BODY[:5000], "top/readme": b"", "__MACOSX/top/._a.json": b"x"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_only_what_is_wanted_is_unpacked(tmp_path, make):
    make(tmp_path / "archive", GOOD | {"top/._b.json": b"x"})
    (tmp_path / "out" / "stale").mkdir(parents=True)
    extract(tmp_path / "archive", tmp_path / "out", (".json", ".sqlite"))
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {"top/a.json", "top/b/c.sqlite"}
    assert (tmp_path / "out/top/b/c.sqlite").read_bytes() == BODY[:5000]
    assert not (tmp_path / "out/stale").exists()


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "name", ["../evil.json", "top/../../evil.json", "/evil.json", "..\\evil.json", "C:\\evil.json", "C:evil.json"]
)
def test_entry_that_leaves_the_folder_is_refused(tmp_path, make, name):
    make(tmp_path / "archive", GOOD | {name: b"evil"})
    with pytest.raises(UserError, match="leaves the folder") as caught:
        extract(tmp_path / "archive", tmp_path / "in" / "out")
    assert repr(name) in str(caught.value)
    assert list((tmp_path / "in").iterdir()) == []
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path, kind):
    make_tar(tmp_path / "archive", {"top/odd": b""}, kind)
    with pytest.raises(UserError, match="'top/odd' is a link or device"):
        extract(tmp_path / "archive", tmp_path / "out")


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644])
def test_links_and_devices_in_zip_are_refused(tmp_path, mode):
    make_zip(tmp_path / "archive", {"top/odd": b"/etc/passwd"}, mode)
    with pytest.raises(UserError, match="'top/odd' is a link or device"):
        extract(tmp_path / "archive", tmp_path / "out")


def cut_zip(path):
    make_zip(path, {"a.json": BODY})
    path.write_bytes(path.read_bytes()[:-500_000])


def damaged_zip(path):
    make_zip(path, {"a.json": BODY})
    raw = bytearray(path.read_bytes())
    raw[500_000] ^= 0xFF
    path.write_bytes(raw)


def encrypted_zip(path):
    make_zip(path, {"a.json": BODY})
    raw = bytearray(path.read_bytes())
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1
    raw[6] |= 1
    path.write_bytes(raw)


def cut_tar_gz(path):
    make_tar(path, {"a.json": BODY})
    path.write_bytes(path.read_bytes()[:-500_000])


def cut_tar_gz_at_the_start(path):
    make_tar(path, {"a.json": BODY})
    path.write_bytes(path.read_bytes()[:20])


def damaged_tar_gz(path):
    make_tar(path, {"a.json": BODY})
    raw = bytearray(path.read_bytes())
    raw[500_000:500_100] = bytes(100)
    path.write_bytes(raw)


def cut_tar(path):
    make_tar(path, {"a.json": BODY}, compression="")
    path.write_bytes(path.read_bytes()[:-500_000])


def cut_tar_xz(path):
    make_tar(path, {"a.json": BODY}, compression="xz")
    path.write_bytes(path.read_bytes()[:-500_000])


def text_file(path):
    path.write_text("not an archive")


def empty_file(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        cut_zip,
        damaged_zip,
        encrypted_zip,
        cut_tar_gz,
        cut_tar_gz_at_the_start,
        damaged_tar_gz,
        cut_tar,
        cut_tar_xz,
        text_file,
        empty_file,
    ],
)
def test_damaged_archive(tmp_path, damage):
    damage(tmp_path / "archive")
    with pytest.raises(
        UserError, match=r"archive: not a whole zip or tar archive \(.+\)\. Get it again, or name another"
    ):
        extract(tmp_path / "archive", tmp_path / "in" / "out")
    assert (tmp_path / "archive").exists()
    assert list((tmp_path / "in").iterdir()) == []


def test_an_archive_that_would_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("common.download.SMALL", 100_000)
    for make in (make_zip, make_tar):
        make(tmp_path / "archive", {"a.json": b"[]", "b.json": bytes(30_000_000)})
        with pytest.raises(UserError, match=r"unpacks to more than 200 times its size, at 'b\.json'.*Do not use it"):
            extract(tmp_path / "archive", tmp_path / "in" / "out")
        assert list((tmp_path / "in").iterdir()) == []
    make_zip(tmp_path / "archive", {"a.json": bytes(100_000)})
    extract(tmp_path / "archive", tmp_path / "in" / "out")
    monkeypatch.setattr("common.download.MOST_ENTRIES", 3)
    make_zip(tmp_path / "archive", {f"{number}.json": b"" for number in range(4)})
    with pytest.raises(UserError, match="more than 3 entries"):
        extract(tmp_path / "archive", tmp_path / "in" / "out")


def test_what_gives_access_is_in_no_output(tmp_path, naps, capsys):
    with serve(Server({"status": 503}, {"status": 404})) as url, pytest.raises(UserError):
        download(f"{url}/data.zip?X-Amz-Signature=0ff1ce", tmp_path / "data.zip", None)
    assert "data.zip?X-Amz-Signature=***: the server answered 503; trying again" in capsys.readouterr().out


# Sources


def test_source_that_is_not_there(tmp_path):
    with (
        pytest.raises(UserError, match=r"nowhere: no such file or folder"),
        opened("nowhere", None, tmp_path / "s", ("",)),
    ):
        pass


def test_local_archive_is_checked_and_never_deleted(tmp_path):
    archive = make_zip(tmp_path / "archive.zip", GOOD)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    with opened(str(archive), found, tmp_path / "scratch", ("",)) as (folder, sha256):
        assert sha256 == found
        assert (folder / "top/a.json").is_file()
    assert not (tmp_path / "scratch").exists()
    with (
        pytest.raises(UserError, match=f"sha256 is {found}, expected {'1' * 64}"),
        opened(str(archive), "1" * 64, tmp_path / "scratch", ("",)),
    ):
        pass
    assert archive.exists()


def test_folder_has_no_checksum(tmp_path):
    with opened(str(tmp_path), None, tmp_path / "scratch", ("",)) as (folder, sha256):
        assert (folder, sha256) == (tmp_path, None)
    with pytest.raises(UserError, match="Set sha256 to null"), opened(str(tmp_path), SHA256, tmp_path / "s", ("",)):
        pass


def test_downloaded_archive_is_kept_for_other_studies(tmp_path):
    archive = make_zip(tmp_path / "archive.zip", GOOD)
    server = Server(body=archive.read_bytes())
    with serve(server) as url:
        for study in ("one", "two"):
            with opened(f"{url}/a.zip", None, tmp_path / study, ("",), tmp_path / "cache") as (folder, _):
                assert (folder / "top/a.json").is_file()
    assert len(server.seen) == 1


def test_root_is_found_wherever_it_is(tmp_path):
    deep = tmp_path / "download" / "spider_data"
    (deep / "database").mkdir(parents=True)
    (deep / "tables.json").touch()
    (deep / "database" / "tables.json").touch()
    assert find_root(tmp_path, "tables.json", "x") == find_root(deep, "tables.json", "x") == deep
    with pytest.raises(UserError, match=r"x\.zip: holds no dev\.json"):
        find_root(tmp_path, "dev.json", "x.zip")
    (tmp_path / "download" / "copy").mkdir()
    (tmp_path / "download" / "copy" / "tables.json").touch()
    with pytest.raises(UserError, match=r"copy and spider_data both hold tables\.json"):
        find_root(tmp_path, "tables.json", "x.zip")
