// Runs a graph model in TensorFlow.js: node tfjs_run.mjs NODE_MODULES MODEL.json INPUTS.bin OUTPUTS.bin
// INPUTS.bin holds float32 inputs of the model, one after the other. OUTPUTS.bin receives the float32 outputs of each
// input, in the order of the names that are printed as a JSON list of [name, shape].
import fs from "node:fs";
import { loadModel } from "./tfjs_model.mjs";

const [nodeModules, model, inputsFile, outputsFile] = process.argv.slice(2);
const { tf, net } = await loadModel(nodeModules, model);
const shape = net.inputs[0].shape;
const size = shape.reduce((product, side) => product * side, 1);
const inputs = new Float32Array(new Uint8Array(fs.readFileSync(inputsFile)).buffer);
const names = net.outputs.map((output) => output.name).sort();
const written = fs.openSync(outputsFile, "w");
let shapes = [];
for (let start = 0; start < inputs.length; start += size) {
  const outputs = net.execute(tf.tensor(inputs.slice(start, start + size), shape), names);
  shapes = outputs.map((output) => output.shape);
  for (const output of outputs) fs.writeSync(written, new Uint8Array(Float32Array.from(output.dataSync()).buffer));
}
fs.closeSync(written);
console.log(JSON.stringify(names.map((name, index) => [name, shapes[index]])));
