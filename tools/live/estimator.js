// The person detector and the pose network in ONNX Runtime Web.

import * as ort from "./ort.wasm.min.mjs";
import { imageToCrop, networkSize, resizeImage, selectBoxes, warpCrop } from "./geometry.js";

// Half of the cores: the browser needs the others, and two threads that share a core are slower than one. The networks
// are too small for more than four.
const wantedThreads = Math.min(Math.ceil((navigator.hardwareConcurrency || 1) / 2), 4);

/** Whether the browser allows fewer threads than the networks could use: these need the headers of serve.py. */
export const lacksThreads = wantedThreads > 1 && !globalThis.crossOriginIsolated;

async function request(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} is missing (HTTP status ${response.status})`);
  return response;
}

/** Returns the content of a gzip file. */
function unpack(response) {
  return new Response(response.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** Estimates the poses of images {data, width, height}, RGBA uint8. */
export class PoseEstimator {
  #pose;
  #detector;

  constructor(config, pose, detector) {
    this.config = config;
    this.#pose = pose;
    this.#detector = detector;
  }

  /** Loads config.json and both networks from the folder of the page. */
  static async load() {
    ort.env.wasm.numThreads = lacksThreads ? 1 : wantedThreads;
    // the networks run in a worker, so that the page stays responsive
    ort.env.wasm.proxy = true;
    const config = await (await request("config.json")).json();
    ort.env.wasm.wasmBinary = await unpack(await request(config.runtime.wasm));
    // 3 is errors only: warnings are of the optimization of graphs
    const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
    const pose = await ort.InferenceSession.create(config.pose.file, options);
    const detector = await ort.InferenceSession.create(config.detector.file, options);
    return new PoseEstimator(config, pose, detector);
  }

  /** The number of threads of the networks. */
  get threads() {
    return ort.env.wasm.numThreads;
  }

  /**
   * Runs the pose network on crops.
   *
   * @param {Uint8Array[]} crops RGB (height x width x 3) of the size config.pose.inputSize [width, height].
   * @returns for each crop {keypoints: [[x, y], ...] in crop pixels, scores: [...]}.
   */
  async run(crops) {
    const [width, height] = this.config.pose.inputSize;
    const results = [];
    for (const crop of crops) {
      const tensor = new ort.Tensor("uint8", crop, [1, height, width, 3]);
      const { keypoints, scores } = await this.#pose.run({ crops: tensor });
      const points = Array.from(scores.data, (_, index) => [keypoints.data[2 * index], keypoints.data[2 * index + 1]]);
      results.push({ keypoints: points, scores: Array.from(scores.data) });
    }
    return results;
  }

  /** Detects the persons of an image: [{box, score}, ...] with scores from a threshold. */
  async detect(image, threshold = this.config.detector.thresholds.display) {
    const settings = this.config.detector;
    const size = networkSize(image.width, image.height, settings);
    const pixels = resizeImage(image, size, settings.largestBilinearFactor);
    const tensor = new ort.Tensor("uint8", pixels, [1, size[1], size[0], 3]);
    const { boxes, scores } = await this.#detector.run({ images: tensor });
    return selectBoxes(boxes.data, scores.data, size, image, threshold, settings);
  }

  /** Estimates the poses in boxes: {keypoints, scores, box, boxScore} for each, in image pixels. */
  async estimate(image, detections) {
    const { inputSize, padding } = this.config.pose;
    const maps = detections.map(({ box }) => imageToCrop(box, inputSize, padding));
    const results = await this.run(maps.map((map) => warpCrop(image, map, inputSize)));
    return results.map(({ keypoints, scores }, index) => {
      const { scale, x, y } = maps[index];
      const { box, score } = detections[index];
      return { keypoints: keypoints.map((point) => [(point[0] - x) / scale, (point[1] - y) / scale]), scores, box, boxScore: score };
    });
  }

  /** Detects the persons of an image and estimates their poses. */
  async predict(image) {
    return this.estimate(image, await this.detect(image));
  }
}
