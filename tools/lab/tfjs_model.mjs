// Loads a graph model in TensorFlow.js: its JSON file in the folder of its shards, on the CPU.
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

export async function loadModel(nodeModules, model) {
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
  return { tf, net };
}
