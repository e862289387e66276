// The page: an image or the camera, and the poses drawn on a canvas.

import { drawPoses } from "./drawing.js";
import { PoseEstimator, lacksThreads } from "./estimator.js";
import { Tracker } from "./tracker.js";

// larger images are reduced: browsers of phones have no larger canvas
const MAX_PIXELS = 16e6;
const CAMERA_SIZE = { width: { ideal: 640 }, height: { ideal: 480 } };
// the time over which the frames per second are averaged
const RATE_MILLISECONDS = 3000;

const element = (id) => document.getElementById(id);
const [file, example, camera, stage, hint, canvas, video] = [
  ...["file", "example", "camera", "stage", "hint", "canvas", "video"].map(element),
];
const context = canvas.getContext("2d");
// a second canvas, whose pixels are read often, keeps the image while the networks run
const source = document.createElement("canvas");
const sourceContext = source.getContext("2d", { willReadFrequently: true });

const ready = PoseEstimator.load();
let stream = null;
// counts the inputs that were chosen: results of earlier ones are dropped
let choice = 0;
let result = null;

/** For programs and tests: await posedy.ready, then posedy.run(crops) or posedy.predict(image). */
window.posedy = {
  ready,
  run: async (crops) => (await ready).run(crops),
  detect: async (image, threshold) => (await ready).detect(image, threshold),
  predict: async (image) => (await ready).predict(image),
  /** The last result: {poses, width, height, milliseconds}, with framesPerSecond for the camera; null before it. */
  get result() {
    return result;
  },
};

function showStatus(text) {
  element("status").textContent = text;
}

function showError(text) {
  element("alert").textContent = text;
}

/** Formats a number of persons. */
function countPersons(poses) {
  return poses.length === 1 ? "1 person" : `${poses.length || "no"} persons`;
}

/** Draws an image of width x height pixels on the second canvas and returns its pixels. */
function readPixels(image, width, height) {
  const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
  source.width = Math.max(1, Math.round(width * scale));
  source.height = Math.max(1, Math.round(height * scale));
  sourceContext.drawImage(image, 0, 0, source.width, source.height);
  return sourceContext.getImageData(0, 0, source.width, source.height);
}

/** Shows the image of the second canvas. */
function showSource() {
  canvas.width = source.width;
  canvas.height = source.height;
  context.drawImage(source, 0, 0);
  canvas.setAttribute("aria-label", "the image, without keypoints");
  canvas.hidden = false;
  hint.hidden = true;
}

/** Shows the image of the second canvas with poses. */
function show(poses, config) {
  showSource();
  drawPoses(context, poses, config.skeleton, config.drawing);
  canvas.setAttribute("aria-label", `the image with the keypoints of ${countPersons(poses)}`);
}

/** Starts a new input: stops the camera and clears messages; returns its number. */
function choose() {
  stopCamera();
  showError("");
  element("numbers").textContent = "";
  result = null;
  return ++choice;
}

async function showImage(blob, name) {
  const number = choose();
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    if (number === choice) showError(`${name} is not an image that this browser can read: choose a JPEG, PNG or WebP file.`);
    return;
  }
  if (number !== choice) return;
  const pixels = readPixels(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  showSource();
  showStatus(`${name}: detecting persons …`);
  await run(number, async (estimator) => {
    const start = performance.now();
    const poses = await estimator.predict(pixels);
    if (number !== choice) return;
    const milliseconds = performance.now() - start;
    show(poses, estimator.config);
    result = { poses, width: pixels.width, height: pixels.height, milliseconds };
    showStatus(`${name}: ${countPersons(poses)}, ${Math.round(milliseconds)} ms`);
  });
}

/** Runs a function with the loaded estimator; its errors are shown unless another input was chosen. */
async function run(number, work) {
  try {
    await work(await ready);
  } catch (error) {
    if (number !== choice) return;
    stopCamera();
    showStatus("");
    showError(`The networks failed: ${error.message ?? error}`);
  }
}

async function startCamera() {
  const number = choose();
  showStatus("Starting the camera …");
  let opened;
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    opened = await navigator.mediaDevices.getUserMedia({ video: CAMERA_SIZE });
  } catch (error) {
    if (number === choice) {
      showStatus("");
      showError(cameraMessage(error));
    }
    return;
  }
  if (number !== choice) return opened.getTracks().forEach((track) => track.stop());
  stream = opened;
  camera.textContent = "Stop the camera";
  stream.getVideoTracks()[0].addEventListener("ended", () => number === choice && endCamera("The camera was disconnected."));
  video.srcObject = stream;
  await run(number, async (estimator) => {
    await video.play();
    showStatus("The camera is on. Its images stay on this device.");
    await followCamera(number, estimator);
  });
}

/** Estimates the poses of frames of the camera until another input is chosen. */
async function followCamera(number, estimator) {
  let tracker = new Tracker(estimator);
  let size = "";
  let times = [];
  while (number === choice) {
    await nextFrame();
    if (number !== choice) return;
    const start = performance.now();
    const pixels = readPixels(video, video.videoWidth, video.videoHeight);
    // a turned phone changes the size: the boxes of earlier frames have no meaning
    if (size !== (size = `${pixels.width}x${pixels.height}`)) tracker = new Tracker(estimator);
    const poses = await tracker.next(pixels);
    if (number !== choice) return;
    show(poses, estimator.config);
    const now = performance.now();
    times = [...times.filter((time) => now - time <= RATE_MILLISECONDS), now];
    const framesPerSecond = times.length > 1 ? ((times.length - 1) * 1000) / (now - times[0]) : 0;
    result = { poses, width: pixels.width, height: pixels.height, milliseconds: now - start, framesPerSecond };
    element("numbers").textContent = `${framesPerSecond.toFixed(1)} frames/s, ${countPersons(poses)}`;
  }
}

/** Waits for the next frame of the camera. */
function nextFrame() {
  return new Promise((resolve) => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
    else requestAnimationFrame(resolve);
  });
}

function cameraMessage(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The camera is blocked: allow it for this page in the browser's settings, then start it again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No camera was found: connect one, or choose an image.";
    case "NotReadableError":
      return "The camera cannot be read: another program may use it.";
    case "SecurityError":
      return "Browsers allow the camera only on this computer's own address (localhost) or over https.";
    default:
      return `The camera cannot be started: ${error.message || error.name}`;
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  video.srcObject = null;
  camera.textContent = "Start the camera";
}

function endCamera(message) {
  choose();
  showStatus(message);
}

async function showExample() {
  const before = choice;
  const { config } = await ready;
  const blob = await (await fetch(config.example.file)).blob();
  if (before === choice) await showImage(blob, "Example image");
}

/** Shows the legend, the networks and the credits, which come from config.json. */
function describe({ config, threads }) {
  const [left, right] = [config.drawing.left, config.drawing.right].map((color) => `rgb(${color})`);
  element("left").style.background = left;
  element("right").style.background = right;
  element("legend").hidden = false;
  const threadText = threads === 1 ? "1 thread" : `${threads} threads`;
  element("about").textContent =
    `${config.pose.name} at ${config.pose.inputSize[1]}x${config.pose.inputSize[0]} and ${config.detector.name}, ` +
    `posedy ${config.version}, ONNX Runtime Web ${config.runtime.version}, ${threadText}.`;
  const { page, license } = config.example;
  const link = Object.assign(document.createElement("a"), { href: page, textContent: "its page" });
  element("credits").append(`The example image is by the Flickr user that `, link, ` names, ${license}.`);
}

function connect() {
  file.addEventListener("change", () => {
    if (file.files.length) showImage(file.files[0], file.files[0].name);
    file.value = ""; // the same file may be chosen again
  });
  example.addEventListener("click", showExample);
  camera.addEventListener("click", () => (stream ? endCamera("The camera is off.") : startCamera()));
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      stage.classList.toggle("dropping", name === "dragover");
    });
  }
  document.addEventListener("drop", ({ dataTransfer }) => {
    if (dataTransfer.files.length) showImage(dataTransfer.files[0], dataTransfer.files[0].name);
    else showError("Drop an image file: what was dropped is no file.");
  });
}

async function start() {
  connect();
  element("threads").hidden = !lacksThreads;
  try {
    const estimator = await ready;
    describe(estimator);
    for (const control of [file, example, camera]) control.disabled = false;
    if (choice === 0) await showExample(); // no image was dropped meanwhile
  } catch (error) {
    showStatus("");
    showError(`The networks cannot be loaded: ${error.message ?? error}. Run make live again.`);
  }
}

start();
