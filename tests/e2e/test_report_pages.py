"""Reports in headless Chromium, on a phone and a desk, light and dark, and printed; and what a reader finds in them.

The pictures are left in ``build/pages``, to be looked at.
"""

from __future__ import annotations

import base64
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from cifar10 import CLASSES
from edgeport_export import ExportConfig, export
from edgeport_models import ARCHITECTURES
from edgeport_models.weights import init_random
from edgeport_runtime.commands.cli import main
from edgeport_runtime.pixels.preprocess import preprocess
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Callable

    from selenium.webdriver import Chrome

    Shared = Callable[[str], Path]

pytestmark = pytest.mark.pages

OUTPUT = Path(__file__).parents[2] / "build" / "pages"
NAMES = ("digits", "resnet20", "multilabel", "random", "compared")
SECTIONS = [
    "1. The verdict",
    "2. Variants",
    "3. The proof",
    "4. Where it flips",
    "5. Layers",
    "6. Accuracy",
    "7. What the device sees",
    "8. Where it comes from",
]
MIN_BRIGHTNESS, MAX_BRIGHTNESS = 200, 60  # of a page's background, light and dark


def _digits(folder: Path, _: Shared) -> Path:
    return export(ExportConfig(architecture="lenet5", weights="digits", output=folder / "digits")).path / "report.html"


def _resnet20(folder: Path, shared: Shared) -> Path:
    """Int8 within a budget on labelled images, as a user makes it who wants to know everything."""
    labels = folder / "labels.txt"
    labels.write_text("\n".join(CLASSES) + "\n")
    config = ExportConfig(
        architecture="resnet20",
        output=folder / "resnet20",
        weights=shared("weights/resnet20-12fca82f.th"),
        labels=labels,
        golden=shared("data/cifar10/test"),
        calibration=shared("data/cifar10/calibration"),
        eval=shared("data/cifar10/test"),
        max_drop=1.0,
        explain=True,
    )
    return export(config).path / "report.html"


def _multilabel(folder: Path, shared: Shared) -> Path:
    """A small ViT at random, with a head that was fitted to the photos: its labels are not all wrong."""
    root = shared("data/voc-multilabel")
    rows = list(csv.DictReader((root / "labels.csv").open(encoding="utf-8")))
    names = sorted({name for row in rows for name in row["labels"].split(";")})
    spec = ARCHITECTURES["vit_ti_16"]
    module = spec.build(num_classes=len(names), image_size=64).eval()
    init_random(module, head="heads.head", input_shape=(3, 64, 64), seed=0)
    contract = replace(spec.preprocess, image_size=64, resize_size=64)
    x_BCHW = torch.from_numpy(np.stack([preprocess(root / row["path"], contract) for row in rows]))
    head = module.get_submodule("heads.head")
    seen: list[Any] = []
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        module(x_BCHW)
        features = torch.cat([seen[0], torch.ones(len(rows), 1)], dim=1)
        wanted = torch.tensor([[2.0 if name in row["labels"].split(";") else -3.0 for name in names] for row in rows])
        ridge = features.T @ features + 5.0 * torch.eye(features.shape[1])
        fitted = torch.linalg.solve(ridge, features.T @ wanted)
        head.weight.copy_(fitted[:-1].T)
        head.bias.copy_(fitted[-1])
    torch.save(module.state_dict(), folder / "voc.pth")
    (folder / "voc.txt").write_text("\n".join(names) + "\n")
    config = ExportConfig(
        architecture="vit_ti_16",
        output=folder / "voc",
        weights=folder / "voc.pth",
        labels=folder / "voc.txt",
        task="multilabel",
        image_size=64,
        eval=root / "labels.csv",
        max_drop=10.0,
        evidence=True,
    )
    return export(config).path / "report.html"


def _random(folder: Path, _: Shared) -> Path:
    config = ExportConfig(architecture="resnet18", output=folder / "random", image_size=64, num_classes=7)
    return export(config).path / "report.html"


_MAKERS = {"digits": _digits, "resnet20": _resnet20, "multilabel": _multilabel, "random": _random}


@pytest.fixture
def page(shared: Shared, once: Callable[[str, Callable[[Path], object]], Path]) -> Callable[[str], Path]:
    """A page by its name; that of a comparison is of the variants of another's bundle."""

    def compare(bundle: Path, folder: Path) -> Path:
        pair, file = [f"{bundle}@fp32", f"{bundle}@int8"], folder / "compared.html"
        assert main(["compare", *pair, "--data", str(shared("data/cifar10/test")), "-o", str(file)]) == 0
        return file

    def make(name: str) -> Path:
        bundle = make("resnet20").parent if name == "compared" else None

        def fill(folder: Path) -> None:
            file = _MAKERS[name](folder, shared) if bundle is None else compare(bundle, folder)
            (folder / "page.txt").write_text(str(file))

        return Path((once(f"page-{name}", fill) / "page.txt").read_text())

    return make


def _show(browser: Chrome, page: Path, width: int, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


def _violations(browser: Chrome, axe: str) -> list[list[str]]:
    browser.execute_script(axe)
    script = """
        const done = arguments[arguments.length - 1];
        axe.run().then(r => done(r.violations.map(v => [v.id, ...v.nodes.map(n => n.html)])), e => done([[String(e)]]));
    """
    found: list[list[str]] = browser.execute_async_script(script)
    return found


def _keep(browser: Chrome, name: str, width: int) -> None:
    """The whole page as a picture."""
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / name).write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.parametrize("name", slow_but(["digits"], NAMES))
def test_a_page_is_whole_on_every_screen(
    name: str, page: Callable[[str], Path], browser: Chrome, peer: Callable[[str], Path]
) -> None:
    file = page(name)
    axe = (peer("npm") / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    for width in (390, 1280):
        for scheme in ("light", "dark"):
            _show(browser, file, width, scheme)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            shown = browser.execute_script(
                "return [...document.querySelectorAll('svg.plot')].filter(s => s.getClientRects().length).length"
            )
            num_plots = browser.execute_script("return document.querySelectorAll('figure').length")
            assert shown == num_plots > 0  # of the two sizes of each plot, one
            colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            brightness = int(colour.split("(")[1].split(",")[0])
            assert brightness > MIN_BRIGHTNESS if scheme == "light" else brightness < MAX_BRIGHTNESS
            _keep(browser, f"{name}-{width}-{scheme}.png", width)
            assert _violations(browser, axe) == []
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})
    pdf = base64.b64decode(printed["data"])
    (OUTPUT / f"{name}.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF")
    assert b"/MediaBox [0 0 594.95996 841.91998]" in pdf or b"/MediaBox [0 0 595" in pdf  # A4
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}


def _text(browser: Chrome, selector: str) -> str:
    text: str = browser.find_element("css selector", selector).text
    return text


def test_the_sections_stand_in_their_order(page: Callable[[str], Path], browser: Chrome) -> None:
    _show(browser, page("digits"), 1280, "light")
    assert [heading.text for heading in browser.find_elements("css selector", "h2")] == SECTIONS
    browser.find_element("link text", "Where it flips").click()
    assert browser.current_url.endswith("#flips")
    assert "No real image was used: the 8 that were compared are synthetic" in _text(browser, ".not")
    assert "Apache-2.0" in _text(browser, "section[aria-labelledby=provenance]")


@pytest.mark.slow
def test_the_five_questions_of_a_stranger(page: Callable[[str], Path], browser: Chrome) -> None:
    """Which variant ships, what it loses, on which images, how fast it is, what was not tested: docs/report.md."""
    file = page("resnet20")
    told = json.loads((file.parent / "report.json").read_text())
    chosen = told["chosen"]["variant"]
    row = next(row for row in told["variants"] if row["name"] == "int8")
    agreement = row["agreement"]
    _show(browser, file, 1280, "light")
    verdict = _text(browser, "section[aria-labelledby=verdict]")
    assert _text(browser, ".lead").startswith(f"{chosen} ships")
    assert f"the same class as the PyTorch model on {agreement['num_equal']} of 500 of your images" in verdict
    assert "95% interval" in verdict
    assert "top-1 accuracy is: fp32 91.0%, int8" in verdict
    cards = [card.text for card in browser.find_elements("css selector", ".card")]
    assert len(cards) == 500 - agreement["num_equal"] == told["num_flips"]
    assert all(flip["image"] in card for flip, card in zip(told["flips"], cards, strict=True))
    assert "on this machine" in verdict
    table = _text(browser, "section[aria-labelledby=variants] table")
    assert "p50 ms" in table
    assert f"{row['latency']['p50_ms']:.3g}" in table
    assert "No other device than cpu of this machine was tried" in _text(browser, ".not")


@pytest.mark.slow
def test_random_weights_are_said_to_be_random(page: Callable[[str], Path], browser: Chrome) -> None:
    _show(browser, page("random"), 390, "dark")
    assert "The weights are random: no decision means anything" in _text(browser, ".not")
    assert "No real image was used" in _text(browser, ".not")
