// Runs the model of this folder on an image, in the browser. The preprocessing is in the model: it takes 8-bit RGB or
// RGBA pixels of any size. Nothing is fetched but from this folder.

const MAX_PIXELS = 89478485;
const TOP_K = 5;
const ENOUGH_MS = 5000; // of golden images at start; one is run in any case
const PATIENCE_MS = 3000; // for what keeps the page offline, at the first visit
const element = (id) => document.getElementById(id);
let bundle, session, ort, backend;
let turn = 0; // of the image that was chosen last

function show(text) {
  element("status").textContent = text;
}

function fail(message) {
  const box = element("error");
  box.textContent = message;
  box.hidden = message === "";
}

async function fetched(url, options) {
  const name = url.split("?")[0];
  const response = await fetch(url, options).catch((error) => {
    throw new Error(`${name} cannot be loaded: ${error.message}`);
  });
  if (!response.ok) throw new Error(`${name} cannot be loaded: the server answers ${response.status}`);
  return response;
}

async function hasWebGpu() {
  try {
    return (await navigator.gpu?.requestAdapter()) != null; // the interface can be there without an adapter
  } catch {
    return false;
  }
}

// At the first visit what follows is fetched through the service worker, which keeps it; without one (a page that is
// not served securely, or a browser that has none) the page works with a connection alone.
async function prepareOffline() {
  if (!("serviceWorker" in navigator)) return;
  const changed = new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
  });
  try {
    const registration = await navigator.serviceWorker.register("sw.js");
    if (registration.active !== null) return;
  } catch (error) {
    console.warn(`not offline: ${error.message}`);
    return;
  }
  await Promise.race([changed, new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
}

async function tellOffline() {
  if (navigator.serviceWorker?.controller == null) return;
  element("offline").hidden = (await caches.match(modelUrl())) === undefined;
}

// By its digest, so that a page that was replaced does not go on with the model of the old one.
function modelUrl() {
  return `${bundle.model}?${bundle.sha256}`;
}

async function open(kind, model) {
  ort = await import(kind === "webgpu" ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;
  if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads need shared memory
  return ort.InferenceSession.create(model, { executionProviders: [kind] });
}

async function load() {
  await prepareOffline();
  bundle = await (await fetched("bundle.json", { cache: "no-store" })).json();
  document.title = bundle.title;
  element("title").textContent = bundle.title;
  if (bundle.labels !== null && bundle.labels.length !== bundle.num_classes) {
    throw new Error(`bundle.json has ${bundle.labels.length} labels for ${bundle.num_classes} classes`);
  }
  show(`Loading the model, ${(bundle.size_bytes / 1e6).toFixed(1)} MB…`);
  const model = new Uint8Array(await (await fetched(modelUrl())).arrayBuffer());
  if (model.length !== bundle.size_bytes) {
    throw new Error(`${bundle.model} has ${model.length} bytes, not ${bundle.size_bytes}; copy the folder again`);
  }
  const checked = await choose(model);
  show(`Ready: ${backend}, ${checked}.`);
  for (const id of ["choose", "photo"]) element(id).disabled = false;
  await tellOffline();
}

// WebGPU, or else WebAssembly: the first that loads the model and gives what PyTorch computes.
async function choose(model) {
  backend = "WebAssembly";
  if (await hasWebGpu()) {
    try {
      session = await open("webgpu", model);
      const checked = await replay();
      backend = "WebGPU";
      return checked;
    } catch (error) {
      backend = `WebAssembly (WebGPU failed: ${error.message})`;
    }
  }
  session = await open("wasm", model);
  return replay();
}

// The golden images, whose outputs PyTorch computed: a browser that gives others must not answer.
async function replay() {
  const { images, expected, tolerance, max_flips: maxFlips } = bundle.golden;
  const canvas = document.createElement("canvas");
  const start = performance.now();
  let distance = 0;
  let norm = 0;
  let flips = 0;
  let count = 0;
  for (const [row, { file, sha256 }] of images.entries()) {
    if (count > 0 && performance.now() - start > ENOUGH_MS) break;
    show(`Comparing with PyTorch, ${row + 1} of ${images.length}…`);
    const outputs = await run(await pixelsOf(await (await fetched(`${file}?${sha256}`)).blob(), file, canvas));
    const [ours, theirs] = [centred(outputs), centred(expected[row])];
    ours.forEach((value, i) => (distance += (value - theirs[i]) ** 2));
    theirs.forEach((value) => (norm += value ** 2));
    flips += decided(outputs) !== decided(expected[row]);
    count += 1;
  }
  if (count === 0) return "not compared with PyTorch: no golden image that browsers read as it does";
  const relative = Math.sqrt(distance / norm);
  if (!(relative <= tolerance) || flips > maxFlips) {
    throw new Error(
      `This browser does not give what PyTorch computes: relative L2 ${relative.toPrecision(2)} (at most ` +
        `${tolerance.toPrecision(2)}), another decision on ${flips} of ${count} golden images. Try another browser.`,
    );
  }
  return `as PyTorch on ${count} golden image${count === 1 ? "" : "s"}`;
}

// Of multi-class logits each image's mean is taken off, to which the softmax is blind.
function centred(outputs) {
  const values = Array.from(outputs);
  if (bundle.task !== "multiclass" || bundle.output !== "logits") return values;
  const mean = values.reduce((total, value) => total + value, 0) / values.length;
  return values.map((value) => value - mean);
}

function decided(outputs) {
  const found = ranked(outputs);
  const label = bundle.task === "multiclass" ? found[0].i : "";
  return `${label}:${found.filter(({ isDecided }) => isDecided).map(({ i }) => i).sort()}`;
}

async function pixelsOf(file, name, canvas) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const image = await createImageBitmap(file, options).catch(() => {
    throw new Error(`${name} is not an image that this browser can read`);
  });
  const { width, height } = image;
  const [rows, columns] = bundle.covered_sides ?? [0, 0]; // the model makes the image as small as covers them
  const resized = Math.max((rows ** 2 * width) / height, (columns ** 2 * height) / width);
  if (Math.max(width * height, resized) > MAX_PIXELS) {
    throw new Error(`${name}, of ${width}×${height} pixels, has too many of them, or is too narrow`);
  }
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  image.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const { channels } = bundle;
  const pixels = new Uint8Array(width * height * channels);
  for (let from = 0, to = 0; to < pixels.length; from += 4) {
    for (let channel = 0; channel < channels; channel++) pixels[to++] = rgba[from + channel];
  }
  return new ort.Tensor("uint8", pixels, [height, width, channels]);
}

async function run(image) {
  const outputs = (await session.run({ image }))[bundle.output].data;
  if (outputs.length !== bundle.num_outputs) {
    throw new Error(`the model gave ${outputs.length} values, not ${bundle.num_outputs}`);
  }
  return outputs;
}

function probabilities(outputs) {
  const values = Array.from(outputs);
  if (!values.every(Number.isFinite)) throw new Error("the model gave values that are not numbers");
  let scores = values;
  if (bundle.output === "logits" && bundle.task === "multiclass") {
    const largest = Math.max(...values);
    const powers = values.map((value) => Math.exp(value - largest));
    const sum = powers.reduce((total, power) => total + power, 0);
    scores = powers.map((power) => power / sum);
  } else if (bundle.output === "logits") {
    scores = values.map((value) => 1 / (1 + Math.exp(-value)));
  }
  return scores;
}

function ranked(outputs) {
  const scores = probabilities(outputs);
  const threshold = (i) => bundle.thresholds[bundle.thresholds.length === 1 ? 0 : i];
  if (bundle.task === "binary") {
    const decided = scores[0] >= threshold(0) ? 1 : 0;
    const both = [1 - scores[0], scores[0]];
    return [decided, 1 - decided].map((i) => ({ i, score: both[i], isDecided: i === decided }));
  }
  const order = scores.map((score, i) => ({ i, score })).sort((a, b) => b.score - a.score || a.i - b.i);
  return order.map(({ i, score }, place) => ({
    i,
    score,
    isDecided: (bundle.task === "multilabel" || place === 0) && (bundle.thresholds === null || score >= threshold(i)),
  }));
}

function print(outputs) {
  const found = ranked(outputs);
  const list = element("results");
  const items = found.slice(0, TOP_K).map(({ i, score, isDecided }) => {
    const item = document.createElement("li");
    item.dataset.index = i;
    if (isDecided) item.className = "decided";
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = bundle.labels === null ? `class ${i}` : bundle.labels[i];
    const value = document.createElement("span");
    value.textContent = `${(100 * score).toFixed(2)}%`;
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = score;
    bar.setAttribute("aria-hidden", "true"); // the number beside it says the same
    item.append(name, value, bar);
    return item;
  });
  const undecided = element("undecided");
  undecided.hidden = found.some(({ isDecided }) => isDecided);
  undecided.textContent = undecided.hidden
    ? ""
    : bundle.task === "multiclass"
      ? `Nothing is decided: below the threshold of ${(100 * bundle.thresholds[0]).toFixed(2)}%.`
      : "Nothing is decided: no class reaches its threshold.";
  list.replaceChildren(...items);
  list.dataset.outputs = JSON.stringify(Array.from(outputs));
}

let working = Promise.resolve();

function classify(file) {
  if (element("choose").disabled || file == null) return; // not ready, or nothing that is a file
  const mine = ++turn;
  working = working.then(() => (mine === turn ? classifyNow(file) : undefined)); // one at a time; the last one counts
}

async function classifyNow(file) {
  fail("");
  const picture = element("picture");
  picture.hidden = true;
  element("undecided").hidden = true;
  element("results").replaceChildren();
  delete element("results").dataset.outputs;
  show("Working…");
  try {
    const image = await pixelsOf(file, file.name, picture);
    picture.hidden = false;
    const start = performance.now();
    const outputs = await run(image);
    const latency = performance.now() - start;
    print(outputs);
    show(`${latency.toFixed(0)} ms by ${backend}.`);
  } catch (error) {
    fail(error.message);
    show(`Ready: ${backend}.`);
  }
}

for (const id of ["choose", "photo"]) {
  element(id).addEventListener("change", (event) => {
    classify(event.target.files[0]);
    event.target.value = ""; // the same file may be chosen again
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", () => element("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  classify(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => classify(event.clipboardData.files[0]));
load().catch((error) => {
  fail(error.message);
  show("Not ready.");
});
