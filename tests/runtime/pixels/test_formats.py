"""Images as people have them: what is taken from folders, files that are no paths, HEIC, AVIF, and transparency."""

from __future__ import annotations

import base64
import importlib
import io
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, features

from edgeport_runtime import ImageWarning, InputError
from edgeport_runtime.pixels import decode, formats
from edgeport_runtime.pixels.decode import load_image, search_images
from edgeport_runtime.pixels.formats import describe_left_out, image_suffixes

if TYPE_CHECKING:
    from pathlib import Path

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)

# What pillow-heif does when it is registered, for a format that is a PNG behind HEIC's first bytes.
STUB = """
import io
from PIL import Image, ImageFile

class Heif(ImageFile.ImageFile):
    format = "HEIF"

    def _open(self):
        self.fp.seek(24)
        inner = Image.open(io.BytesIO(self.fp.read()))
        self._size, self._mode, self.tile = inner.size, inner.mode, []
        self.im = inner.convert("RGB").im

def register_heif_opener():
    Image.register_open("HEIF", Heif, lambda prefix: prefix[4:8] == b"ftyp")
"""


def _as(photo: Path, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    with Image.open(photo) as image:
        image.save(file, file_format, **options)
    return file.getvalue()


def test_a_folder_gives_what_is_taken_alone_and_counts_the_rest(photos: list[Path], tmp_path: Path) -> None:
    jpeg = photos[0].read_bytes()
    taken = {"a.jpg": jpeg, "b.JPEG": jpeg, "c.jfif": jpeg, "d.JPE": jpeg, "e.PNG": _as(photos[0], "PNG")}
    taken |= {"f.ppm": _as(photos[0], "PPM"), "g.TIF": _as(photos[0], "TIFF"), "h.webp": _as(photos[0], "WEBP")}
    if features.check("avif"):
        taken["i.avif"] = _as(photos[0], "AVIF")
    left = {"j.heic": HEIC, "k.HEIC": HEIC, "l.txt": b"text", "m": b"", ".DS_Store": b""}
    for name, data in (taken | left).items():
        (tmp_path / name).write_bytes(data)
    found = search_images(tmp_path)
    assert [path.name for path in found.paths] == list(taken)
    for path in found.paths:
        assert load_image(path, "RGB").size == Image.open(photos[0]).size
    assert found.left_out == {".heic (needs: pip install pillow-heif)": 2, ".txt": 1, "without a suffix": 1}
    assert describe_left_out(found.left_out) == (
        "4 files not taken as images: 2 .heic (needs: pip install pillow-heif), 1 .txt, 1 without a suffix"
    )
    for name in taken:
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"contains no image \(.*\.webp\); 4 files not taken as images: 2 \.heic"):
        search_images(tmp_path)


def test_copies_in_hidden_folders_are_no_images_of_a_folder(photos: list[Path], tmp_path: Path) -> None:
    root = tmp_path / ".data" / "cat"  # what lies above is no matter
    (root / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.jpg", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg"):
        (root / name).write_bytes(photos[0].read_bytes())
    found = search_images(root)
    assert (found.paths, found.left_out) == ([root / "a.jpg"], {})


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(photos: list[Path]) -> None:
    with Image.open(photos[0]) as image:
        original = np.asarray(image.convert("RGB")).astype(int)
    decoded = np.asarray(load_image(_as(photos[0], "AVIF", quality=90), "RGB"))
    assert np.abs(decoded - original).mean() < 3  # measured: 0.9 levels of 255


def test_avif_without_its_reader_names_the_version_of_pillow(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100)
    monkeypatch.setattr(formats, "_has", lambda _module: False)
    with pytest.raises(InputError, match=r"is an AVIF image, which Pillow .* cannot read here; pip install 'pillow>="):
        load_image(data, "RGB")
    assert ".avif" not in image_suffixes()


def test_heic_names_what_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "photo.HEIC"
    path.write_bytes(HEIC)
    with pytest.raises(InputError) as caught:
        load_image(path, "RGB")
    assert str(caught.value) == f"{path} is a HEIC image; pip install pillow-heif, or save it as JPEG or PNG"


def test_heic_is_read_where_pillow_heif_is_installed(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pillow_heif.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    (tmp_path / "photo.heic").write_bytes(HEIC[:24] + _as(photos[0], "PNG"))
    (tmp_path / "damaged.heic").write_bytes(HEIC)
    try:
        assert [path.name for path in search_images(tmp_path).paths] == ["damaged.heic", "photo.heic"]
        with Image.open(photos[0]) as image:
            np.testing.assert_array_equal(load_image(tmp_path / "photo.heic", "RGB"), image.convert("RGB"))
        with pytest.raises(InputError, match=r"damaged\.heic is (damaged|a HEIC image that pillow-heif cannot read)"):
            load_image(tmp_path / "damaged.heic", "RGB")
    finally:
        sys.modules.pop("pillow_heif", None)
        Image.OPEN.pop("HEIF", None)
        if "HEIF" in Image.ID:
            Image.ID.remove("HEIF")


def test_text_that_is_no_path_is_answered_shortly(photos: list[Path]) -> None:
    text = base64.b64encode(photos[0].read_bytes()).decode()
    png = base64.b64encode(_as(photos[0], "PNG")).decode()
    assert min(len(text), len(png)) > 12_000
    decoded = "looks like base64, not like a path; give the decoded bytes: base64.b64decode(text)"
    for source, beginning, told in (
        (text, "'/9j/", decoded),
        (png, "'iVBORw0KGgo", decoded),
        (base64.b64encode(bytes(range(256))).decode(), "'AAECAw", decoded),
        ("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "R0lGODlhAQABAIAAA", decoded),
        (f"data:image/jpeg;base64,{text}", "'data:image/jpeg;base64,", "is a data URL, not a path; give the decoded"),
        ("https://example.org/cat.jpg", "https://example.org/cat.jpg", "is a URL, and EdgePort downloads nothing;"),
        ("s3://cats/1.jpg", "s3://cats/1.jpg", "is a URL, and EdgePort downloads nothing; download the image"),
        ("x/." * 4000, "'x/.x/.", "File name too long"),
        ("cat\0.jpg", "cat\0.jpg", "embedded null byte"),
    ):
        with pytest.raises(InputError) as caught:
            load_image(source, "RGB")
        message = str(caught.value)
        assert message.startswith(beginning)
        assert told in message
        assert len(message) < 250
        if len(source) > 250:
            assert f"({len(source):,} characters)" in message


class _Pipe(io.RawIOBase):
    """A file that cannot seek and gives a little at a time, as a connection does."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 1000))


def test_files_are_read_from_their_start(photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data = photos[0].read_bytes()
    expected = load_image(data, "RGB")
    written = io.BytesIO()
    written.write(data)  # and nobody went back to its start
    with photos[0].open("rb") as file:
        for source in (written, file, file, _Pipe(data)):
            assert load_image(source, "RGB") == expected  # type: ignore[arg-type]
        assert not file.closed
    with pytest.raises(InputError, match=r"^the image is empty \(0 bytes\)$"):
        load_image(io.BytesIO(), "RGB")
    with photos[0].open() as text, pytest.raises(InputError, match=r"\.jpg is open as text; open it in binary mode"):
        load_image(text, "RGB")  # type: ignore[arg-type]
    written.close()
    with pytest.raises(InputError, match="the image cannot be read: I/O operation on closed file"):
        load_image(written, "RGB")
    monkeypatch.setattr(decode, "_MAX_BYTES", 5000)
    for endless in (_Pipe(data * 100), io.BytesIO(data), data, photos[0]):
        with pytest.raises(InputError, match=r"bytes; at most 5,000 are accepted"):
            load_image(endless, "RGB")  # type: ignore[arg-type]


def test_transparency_is_dropped_and_said_once(photos: list[Path]) -> None:
    with Image.open(photos[0]) as image:
        opaque = image.convert("RGBA")
    clear = opaque.copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    expected = np.asarray(opaque.convert("RGB"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        np.testing.assert_array_equal(load_image(opaque, "RGB"), expected)
        assert seen == []
        for source in (clear, np.asarray(clear), clear):
            np.testing.assert_array_equal(load_image(source, "RGB"), expected)
    assert [(w.category, w.message.image) for w in seen] == [(ImageWarning, "the image")]  # type: ignore[union-attr]
    assert str(seen[0].message).startswith("the transparency of an image is dropped, and the colours below it are what")


def test_arrays_of_opencv_are_bgr(photos: list[Path]) -> None:
    with Image.open(photos[0]) as image:
        rgb = np.asarray(image.convert("RGB"))
    bgr = rgb[:, :, ::-1]
    np.testing.assert_array_equal(load_image(bgr, "RGB", color="bgr"), rgb)
    np.testing.assert_array_equal(load_image(bgr, "L", color="bgr"), load_image(rgb, "L"))
    opaque = np.dstack([bgr, np.full(bgr.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(load_image(opaque, "RGB", color="bgr"), rgb)
    np.testing.assert_array_equal(load_image(rgb[:, :, 0], "L", color="bgr"), rgb[:, :, 0])
    with pytest.raises(InputError) as caught:
        load_image(photos[0], "RGB", color="bgr")
    assert str(caught.value) == (
        f"color='bgr' is for arrays, but {photos[0]} says itself what its colours are; omit color for it"
    )
    with pytest.raises(InputError, match="color is 'gbr'; the channels of an array are in the order rgb or bgr"):
        load_image(rgb, "RGB", color="gbr")  # type: ignore[arg-type]
