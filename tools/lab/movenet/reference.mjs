// Runs a MoveNet graph model in TensorFlow.js: node reference.mjs NODE_MODULES MODEL.json CROPS.bin
// CROPS.bin holds square RGB crops of the model's input size, uint8. Prints [y, x, score] of all keypoints of all crops.
import fs from "node:fs";
import { loadModel } from "../tfjs_model.mjs";

const [nodeModules, model, cropsFile] = process.argv.slice(2);
const { tf, net } = await loadModel(nodeModules, model);
const size = net.inputs[0].shape[1];
const bytes = new Uint8Array(fs.readFileSync(cropsFile));
const found = [];
for (let start = 0; start < bytes.length; start += size * size * 3) {
  const crop = tf.tensor(Int32Array.from(bytes.subarray(start, start + size * size * 3)), [1, size, size, 3], "int32");
  found.push(...net.execute(crop).dataSync());
}
console.log(JSON.stringify(found));
