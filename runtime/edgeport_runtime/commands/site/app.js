// Runs the model of this folder on an image, in the browser. The preprocessing is in the model: it takes 8-bit RGB or
// RGBA pixels of any size. Nothing is fetched but from this folder.

const MAX_PIXELS = 89478485;
const TOP_K = 5;
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

async function open(kind, model) {
  ort = await import(kind === "webgpu" ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("ort/", import.meta.url).href;
  if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads need shared memory
  return ort.InferenceSession.create(model, { executionProviders: [kind] });
}

async function load() {
  bundle = await (await fetched("bundle.json", { cache: "no-store" })).json();
  document.title = bundle.name;
  element("title").textContent = bundle.name;
  if (bundle.labels !== null && bundle.labels.length !== bundle.num_classes) {
    throw new Error(`bundle.json has ${bundle.labels.length} labels for ${bundle.num_classes} classes`);
  }
  show(`Loading the model, ${(bundle.size_bytes / 1e6).toFixed(1)} MB…`);
  // By its digest, so that a page that was replaced does not go on with the model of the old one.
  const model = new Uint8Array(await (await fetched(`${bundle.model}?${bundle.sha256}`)).arrayBuffer());
  if (model.length !== bundle.size_bytes) {
    throw new Error(`${bundle.model} has ${model.length} bytes, not ${bundle.size_bytes}; copy the folder again`);
  }
  backend = "WebAssembly";
  if (await hasWebGpu()) {
    try {
      session = await open("webgpu", model);
      backend = "WebGPU";
    } catch (error) {
      backend = `WebAssembly (WebGPU failed: ${error.message})`;
    }
  }
  session ??= await open("wasm", model);
  show(`Ready: ${backend}.`);
  for (const id of ["choose", "photo"]) element(id).disabled = false;
}

async function pixelsOf(file) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const image = await createImageBitmap(file, options).catch(() => {
    throw new Error(`${file.name} is not an image that this browser can read`);
  });
  const { width, height } = image;
  const [rows, columns] = bundle.covered_sides ?? [0, 0]; // the model makes the image as small as covers them
  const resized = Math.max((rows ** 2 * width) / height, (columns ** 2 * height) / width);
  if (Math.max(width * height, resized) > MAX_PIXELS) {
    throw new Error(`${file.name}, of ${width}×${height} pixels, has too many of them, or is too narrow`);
  }
  const canvas = element("picture");
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
  canvas.hidden = false;
  return new ort.Tensor("uint8", pixels, [height, width, channels]);
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
  const list = element("results");
  list.replaceChildren();
  for (const { i, score, isDecided } of ranked(outputs).slice(0, TOP_K)) {
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
    bar.setAttribute("aria-label", name.textContent);
    item.append(name, value, bar);
    list.append(item);
  }
  list.dataset.outputs = JSON.stringify(Array.from(outputs));
}

let working = Promise.resolve();

function classify(file) {
  if (session === undefined || file === undefined) return;
  const mine = ++turn;
  working = working.then(() => (mine === turn ? classifyNow(file) : undefined)); // one at a time; the last one counts
}

async function classifyNow(file) {
  fail("");
  element("picture").hidden = true;
  element("results").replaceChildren();
  delete element("results").dataset.outputs;
  show("Working…");
  try {
    const image = await pixelsOf(file);
    const start = performance.now();
    const outputs = (await session.run({ image }))[bundle.output].data;
    const latency = performance.now() - start;
    if (outputs.length !== bundle.num_outputs) {
      throw new Error(`the model gave ${outputs.length} values, not ${bundle.num_outputs}`);
    }
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
load().catch((error) => {
  fail(error.message);
  show("Not ready.");
});
