"""The runtime as a wheel beside a bundle's models, for devices that reach no package index.

It holds ``edgeport_runtime`` alone, packed from the package as it is imported here, installed from a wheel or from a
source folder, with the metadata of the distribution. It does not hold numpy, Pillow and ONNX Runtime, which are built
for one system and processor each.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import edgeport_runtime
from edgeport_runtime.errors import ExportError

__all__ = ["write_wheel"]

_NAME, _PACKAGE = "edgeport", "edgeport_runtime"
_BUILD = "1runtime"  # in the file's name: the same version as the whole, and not the same files
_EXTRAS = ("cpu", "gpu", "openvino", "openvino-builtin", "report", "completion", "hub")  # those of the runtime
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_LISTED = ("Metadata-Version", "Name", "Version", "Summary", "License-Expression", "Requires-Python")
_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip: the same files give the same bytes
_DESCRIPTION = "The runtime of EdgePort alone, as it was when the bundle beside it was made."


def write_wheel(folder: Path) -> Path:
    """Write the wheel of the runtime that is running into a folder, which is made.

    Args:
        folder: of the bundle.

    Returns:
        The wheel.

    Raises:
        ExportError: if EdgePort is imported without being installed, so that nothing tells its version.
    """
    try:
        installed = distribution(_NAME)
    except PackageNotFoundError:
        raise ExportError(
            "--with-runtime takes version and requirements from the installed EdgePort, and it is not installed; "
            "install it with pip install . in its source folder, or omit the option"
        ) from None
    version = installed.version.partition("+")[0]
    info = f"{_NAME}-{version}.dist-info"
    root = Path(edgeport_runtime.__file__).parent
    files = {f"{_PACKAGE}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in _sources(root)}
    licence = installed.read_text("licenses/LICENSE")
    if licence is not None:
        files[f"{info}/licenses/LICENSE"] = licence.encode()
    files[f"{info}/METADATA"] = _metadata(installed, version, has_licence=licence is not None).encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {_NAME} {version}\nRoot-Is-Purelib: true\nBuild: {_BUILD}\nTag: py3-none-any\n"
    ).encode()
    files[f"{info}/entry_points.txt"] = _entry_points(installed).encode()
    record = f"{info}/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    folder.mkdir()
    wheel = folder / f"{_NAME}-{version}-{_BUILD}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _OLDEST_DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, data)
    return wheel


def _sources(root: Path) -> list[Path]:
    """The package's files, without what Python and editors put beside them."""
    found = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def _metadata(installed: Distribution, version: str, *, has_licence: bool) -> str:
    """The distribution's, with what the runtime requires."""
    lines = [
        f"{key}: {version if key == 'Version' else value}" for key in _LISTED if (value := installed.metadata[key])
    ]
    if has_licence:
        lines.append("License-File: LICENSE")
    for requirement in installed.requires or []:
        extra = _EXTRA.search(requirement)
        if extra is None or extra[1] in _EXTRAS:
            lines.append(f"Requires-Dist: {requirement}")
    provided = installed.metadata.get_all("Provides-Extra") or []
    lines += [f"Provides-Extra: {extra}" for extra in provided if extra in _EXTRAS]
    return "\n".join([*lines, "", _DESCRIPTION, ""])


def _entry_points(installed: Distribution) -> str:
    ours = [point for point in installed.entry_points if point.value.startswith(f"{_PACKAGE}.")]
    return "\n".join(["[console_scripts]", *(f"{point.name} = {point.value}" for point in ours), ""])


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
