"""``run-model push``: a bundle as a repository of the Hugging Face hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeport_runtime.accuracy.golden import check
from edgeport_runtime.bundle.files import checked_file
from edgeport_runtime.bundle.manifest import MANIFEST_NAME, load_manifest
from edgeport_runtime.classifier import Classifier
from edgeport_runtime.engine.providers import CPU
from edgeport_runtime.errors import InputError, ParityError
from edgeport_runtime.hub import CARD_NAME, HUB_SCHEME, import_hub, parse_address, reason_of
from edgeport_runtime.loading.choice import MEASUREMENTS_NAME, saturates
from edgeport_runtime.report.record import PAGE_NAME, REPORT_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from edgeport_runtime.bundle.manifest import Manifest

__all__ = ["Pushed", "push"]

# Beside what the manifest lists, an export writes these; whatever else lies in the folder is not the bundle's.
_OTHERS = (CARD_NAME, MANIFEST_NAME, MEASUREMENTS_NAME, "infer.py", "infer.c", "Makefile", "required_operators.config")
_EMBEDDED = "data:image/"
_ANY_ADDRESS = f"{HUB_SCHEME}OWNER/NAME"  # what a card calls the repository until there is one
_WRITE = "log in with hf auth login, with a token that may write there"


class Pushed(NamedTuple):
    """What was pushed: where to, the commit's page, the files, and what was left out and why."""

    address: str
    url: str
    files: tuple[str, ...]
    notes: tuple[str, ...]


def push(bundle: Path, address: str, *, thumbnails: bool = False, private: bool = False) -> Pushed:
    """Push a bundle that verifies here, in one commit; the repository is made if there is none.

    Args:
        bundle: the folder.
        address: ``hf://OWNER/NAME``, with ``@BRANCH`` for another than the main branch.
        thumbnails: also push a page of the report that has images embedded, and its figures with them.
        private: make a repository that only its owner sees, if one is made.

    Raises:
        ManifestError: if a file that the manifest lists is missing or altered.
        ParityError: if a variant does not give PyTorch's answers on this machine.
        InputError: if huggingface_hub is not installed, or the repository cannot be written.
    """
    repository, revision = parse_address(address)
    manifest = load_manifest(bundle)
    notes = _check(bundle, manifest)
    names = [*manifest.digests, *(name for name in (*_OTHERS, PAGE_NAME, REPORT_NAME) if (bundle / name).is_file())]
    contents: dict[str, Any] = {name: str(bundle / name) for name in names}
    if not thumbnails:
        notes += _leave_out_images(bundle, contents)
    if CARD_NAME in contents:
        contents[CARD_NAME] = _card(bundle / CARD_NAME, f"{HUB_SCHEME}{repository}", has_report=PAGE_NAME in contents)
    with import_hub(address) as hub:
        api = hub.HfApi()
        try:
            api.create_repo(repository, exist_ok=True, private=private or None)
            commit = api.create_commit(
                repository,
                [
                    hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                    for name, content in contents.items()
                ],
                commit_message=f"{manifest.architecture['name']}, exported by EdgePort",
                revision=revision,
            )
        except Exception as error:  # of the library, and of the one that it sends by, which its releases change
            told = reason_of(error, hub.errors, revision)
            status = getattr(getattr(error, "response", None), "status_code", None)
            remedy = _WRITE if status in (401, 403) else "check the name, the connection and HF_ENDPOINT"
            raise InputError(f"{address} cannot be pushed to: {told}; {remedy}") from error
    return Pushed(f"{HUB_SCHEME}{repository}", str(commit.commit_url), tuple(sorted(contents)), tuple(notes))


def _check(bundle: Path, manifest: Manifest) -> list[str]:
    """See that every file is as it was exported, and that every variant that can run here answers as PyTorch."""
    notes = [f"golden/ holds {len(manifest.golden.images)} images as they were given, which are pushed with it"]
    for name, sha256 in manifest.digests.items():
        checked_file(bundle, name, sha256)
    for variant in manifest.variants:
        if saturates(variant.quantization, CPU):
            notes.append(f"{variant.name} could saturate on this processor, and was not run before it was pushed")
            continue
        with Classifier.load_exactly(bundle, variant=variant.name, device=CPU.device) as classifier:
            try:
                check(classifier, bundle)
            except ParityError as error:
                raise ParityError(f"{bundle} is not pushed: {error}") from None
    return notes


def _card(path: Path, address: str, *, has_report: bool) -> bytes:
    """The card with the repository's address in it, and without a link to what is not pushed."""
    lines = path.read_text(encoding="utf-8").replace(_ANY_ADDRESS, address).splitlines(keepends=True)
    return "".join(line for line in lines if has_report or f"]({PAGE_NAME})" not in line).encode()


def _leave_out_images(bundle: Path, contents: dict[str, Any]) -> list[str]:
    """Put a report without images in the place of the bundle's, and say what could not be made without them."""
    document = _figures(bundle / REPORT_NAME) if REPORT_NAME in contents else None
    if document is not None:
        contents[REPORT_NAME] = json.dumps(document, indent=2, ensure_ascii=False).encode()
    if PAGE_NAME not in contents or f'src="{_EMBEDDED}'.encode() not in (bundle / PAGE_NAME).read_bytes():
        return []
    why = f"{REPORT_NAME} is missing"
    if document is not None:
        from edgeport_runtime.report.page import bundle_page

        try:
            contents[PAGE_NAME] = bundle_page(document).encode()
            return [f"{PAGE_NAME} is pushed without images; --thumbnails pushes it with them"]
        except InputError as error:
            why = str(error)
        except (KeyError, TypeError, ValueError):
            why = f"{REPORT_NAME} is of another EdgePort"
    del contents[PAGE_NAME]
    return [f"{PAGE_NAME} has images embedded, and was left out ({why}); --thumbnails pushes it too"]


def _figures(path: Path) -> Any:
    """The figures of the report without images.

    Raises:
        InputError: if it is not JSON.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; make the report again, or delete the file") from None
    return _without_images(document)


def _without_images(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_images(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_images(one) for one in value]
    return None if isinstance(value, str) and value.startswith(_EMBEDDED) else value
