"""The page of `run-model web` in headless Chromium: the manifest's answers, and no request but to its own folder."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeport_runtime import load_manifest
from edgeport_runtime.commands.cli import main
from speed import slow_but

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.slow


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(_Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(everywhere: Callable[[str], Path], peer: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        engine = peer("npm") / "node_modules" / "onnxruntime-web"
        argv = ["web", str(everywhere(name)), "-o", str(tmp_path / name), "--onnxruntime-web", str(engine)]
        assert main(argv) == 0
        return tmp_path / name

    return make


def _wait(driver: Chrome, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 60).until(lambda d: d.execute_script(f"return {script}"))


def _open(driver: Chrome, url: str) -> None:
    """The page, when it is ready or says why it is not."""
    driver.get(url)
    _wait(driver, "/^(Ready|Not ready)/.test(document.getElementById('status').textContent)")


def _error(driver: Chrome) -> str:
    text: str = driver.execute_script("return document.getElementById('error').textContent")
    return text


def _classify(driver: Chrome, image: Path) -> tuple[int, list[float]]:
    """First class and outputs for an image that is chosen."""
    driver.find_element("id", "choose").send_keys(str(image))
    _wait(driver, "document.getElementById('results').dataset.outputs ?? document.getElementById('error').textContent")
    assert _error(driver) == ""
    outputs = json.loads(driver.execute_script("return document.getElementById('results').dataset.outputs"))
    first = driver.find_element("css selector", "#results li")
    return int(first.get_attribute("data-index") or -1), outputs


def _requests(driver: Chrome) -> list[str]:
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize(
    "name", slow_but(["lenet5"], ["lenet5", "resnet20", "vit_digits", "resnet18_96x160", "vit_32x64"])
)
def test_the_browser_answers_as_pytorch(
    name: str,
    site: Callable[[str], Path],
    serve: Callable[[Path], str],
    browser: Chrome,
    everywhere: Callable[[str], Path],
    answer: Callable[[str, str, list[int]], None],
) -> None:
    bundle = everywhere(name)
    expected = np.load(bundle / "golden" / "expected.npz")["logits"]
    url = serve(site(name))
    _open(browser, url)
    assert browser.find_element("id", "title").text == load_manifest(bundle).architecture["name"]
    found = [_classify(browser, bundle / image.file) for image in load_manifest(bundle).golden.images]
    assert [first for first, _ in found] == expected.argmax(axis=1).tolist()
    answer(name, "Chromium", [first for first, _ in found])
    np.testing.assert_allclose([outputs for _, outputs in found], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    status = browser.find_element("id", "status").text
    assert status.endswith(" ms by WebAssembly.")
    bars = browser.execute_script("return [...document.querySelectorAll('#results progress')].map((bar) => bar.value)")
    assert len(bars) == min(5, expected.shape[1])
    assert bars == sorted(bars, reverse=True)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    requests = _requests(browser)
    assert any(request.startswith(f"{url}model.onnx?") for request in requests)
    assert [request for request in requests if not request.startswith((url, "data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_page_that_reaches_out_is_stopped_and_seen(
    site: Callable[[str], Path], serve: Callable[[Path], str], browser: Chrome
) -> None:
    folder = site("lenet5")
    elsewhere = serve(folder)  # another port is another origin
    with (folder / "app.js").open("a") as file:
        file.write(f'\nfetch("{elsewhere}outside").catch(() => {{ document.body.dataset.blocked = "yes"; }});\n')
    _open(browser, serve(folder))
    assert _wait(browser, "document.body.dataset.blocked") == "yes"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_what_is_missing_or_wrong_is_told(
    site: Callable[[str], Path], serve: Callable[[Path], str], browser: Chrome, tmp_path: Path
) -> None:
    folder = site("lenet5")
    url = serve(folder)
    description = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**description, "labels": description["labels"][1:]}))
    _open(browser, url)
    assert _error(browser) == "bundle.json has 9 labels for 10 classes"
    assert not browser.find_element("id", "choose").is_enabled()
    (folder / "bundle.json").write_text(json.dumps(description))
    shutil.copy(folder / "model.onnx", tmp_path / "model")
    (folder / "model.onnx").write_bytes(b"cut")
    _open(browser, url)
    assert _error(browser).startswith("model.onnx has 3 bytes, not ")
    (folder / "model.onnx").unlink()
    _open(browser, url)
    assert _error(browser) == "model.onnx cannot be loaded: the server answers 404"
    shutil.copy(tmp_path / "model", folder / "model.onnx")
    _open(browser, url)
    (tmp_path / "note.png").write_text("no image")
    browser.find_element("id", "choose").send_keys(str(tmp_path / "note.png"))
    assert _wait(browser, "document.getElementById('error').textContent") == (
        "note.png is not an image that this browser can read"
    )


def test_the_keyboard_reaches_both_buttons(
    site: Callable[[str], Path], serve: Callable[[Path], str], browser: Chrome
) -> None:
    from selenium.webdriver import ActionChains, Keys

    _open(browser, serve(site("lenet5")))
    reached = []
    for _ in range(2):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.switch_to.active_element.get_attribute("id"))
    assert reached == ["choose", "photo"]


def test_a_full_disk_leaves_nothing(
    everywhere: Callable[[str], Path], peer: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = peer("npm") / "node_modules" / "onnxruntime-web"
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from edgeport_runtime.commands.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = ["web", str(everywhere("lenet5")), "-o", str(tmp_path / "site"), "--onnxruntime-web", str(engine)]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}")
    assert list(tmp_path.iterdir()) == []


def test_web_refuses(
    everywhere: Callable[[str], Path], lenet5: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "onnxruntime-web"
    engine.mkdir()
    site = tmp_path / "site"

    def refused(bundle: Path, *options: str) -> str:
        assert main(["web", str(bundle), "-o", str(site), "--onnxruntime-web", str(engine), *options]) == 1
        return capsys.readouterr().err

    assert "export the bundle again with --preprocess in-graph" in refused(lenet5.path)
    assert "lacks ort.wasm.min.mjs; npm install --ignore-scripts onnxruntime-web" in refused(everywhere("lenet5"))
    assert "unknown variant 'int4'; this bundle has fp32, int8" in refused(everywhere("lenet5"), "--variant", "int4")
    from edgeport_runtime.commands import web

    for name in web._ENGINE:
        (engine / name).write_text("")
    site.mkdir()
    (site / "mine").write_text("")
    assert "exists; choose a folder that does not" in refused(everywhere("lenet5"))
    assert [path.name for path in site.iterdir()] == ["mine"]
