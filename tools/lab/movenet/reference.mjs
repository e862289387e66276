// Runs a MoveNet graph model in TensorFlow.js: node reference.mjs NODE_MODULES MODEL.json CROPS.bin
// CROPS.bin holds square RGB crops of the model's input size, uint8. Prints [y, x, score] of all keypoints of all crops.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const [nodeModules, model, cropsFile] = process.argv.slice(2);
const tf = createRequire(path.join(nodeModules, "package.json"))("@tensorflow/tfjs");
await tf.setBackend("cpu");
const content = JSON.parse(fs.readFileSync(model));
const shards = content.weightsManifest.flatMap((group) => group.paths);
const weightData = Buffer.concat(shards.map((name) => fs.readFileSync(path.join(path.dirname(model), name))));
const net = await tf.loadGraphModel({
  load: async () => ({
    modelTopology: content.modelTopology,
    weightSpecs: content.weightsManifest.flatMap((group) => group.weights),
    weightData: new Uint8Array(weightData).buffer,
    format: content.format,
  }),
});
const size = net.inputs[0].shape[1];
const bytes = new Uint8Array(fs.readFileSync(cropsFile));
const found = [];
for (let start = 0; start < bytes.length; start += size * size * 3) {
  const crop = tf.tensor(Int32Array.from(bytes.subarray(start, start + size * size * 3)), [1, size, size, 3], "int32");
  found.push(...net.execute(crop).dataSync());
}
console.log(JSON.stringify(found));
