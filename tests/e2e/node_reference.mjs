// What onnxruntime-node gives for raw RGB pixels: node node_reference.mjs MODEL OUTPUT WIDTH HEIGHT FILE [WIDTH HEIGHT FILE ...]
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";

process.env.ORT_DISABLE_TELEMETRY ??= "1"; // before the first session
const [model, output, ...images] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
const all = [];
for (let i = 0; i < images.length; i += 3) {
  const shape = [Number(images[i + 1]), Number(images[i]), 3];
  const image = new ort.Tensor("uint8", new Uint8Array(readFileSync(images[i + 2])), shape);
  all.push(Array.from((await session.run({ image }))[output].data));
}
console.log(JSON.stringify(all));
