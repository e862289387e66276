// The boxes of persons from one frame of a video to the next, as posedy/inference/tracking.py without track ids.

import { boxArea, boxIou, clipBox, intersection } from "./geometry.js";

/** Estimates the poses of successive frames: the detector runs at every N-th frame, or when a person is lost. */
export class Tracker {
  #tracked = [];
  #frame = 0;
  #personIsLost = false;
  #nextExtra = 0;

  constructor(estimator) {
    this.estimator = estimator;
    this.settings = estimator.config.tracking;
    this.sigmas = estimator.config.skeleton.sigmas;
  }

  /** Returns the poses of the next frame, see `PoseEstimator.estimate`. */
  async next(image) {
    let tracked = this.#tracked;
    const isDue = this.#frame % this.settings.detectEvery === 0;
    const detects = isDue || (this.#personIsLost && this.#frame >= this.#nextExtra);
    if (detects) tracked = await this.#addDetections(image, tracked);
    const poses = await this.estimator.estimate(image, tracked);
    if (detects) {
      this.#personIsLost = false;
      if (!isDue) this.#nextExtra = this.#frame + this.settings.extraInterval;
    }
    this.#frame++;
    const kept = this.#suppressDuplicates(poses, tracked);
    this.#tracked = kept.map((index) => this.#nextBox(poses[index], tracked[index], image)).filter(Boolean);
    this.#personIsLost ||= this.#tracked.length < kept.length;
    return kept.map((index) => poses[index]);
  }

  /** Returns the detections, followed by the tracked persons that no detection matches. */
  async #addDetections(image, tracked) {
    const { trackStart, trackKeep } = this.estimator.config.detector.thresholds;
    const detections = await this.estimator.detect(image, Math.min(trackStart, trackKeep));
    const isDetected = (person, boxes) => boxes.some(({ box }) => this.#match(person.tight, box).matches);
    const strong = detections.filter(({ score }) => score >= trackStart);
    const unmatched = tracked.filter((person) => !isDetected(person, strong));
    // boxes with low scores are used for tracked persons that no other box matches
    const weak = detections.filter(({ score }) => score < trackStart);
    const best = new Set(unmatched.flatMap((person) => this.#bestMatches(person.tight, weak)));
    const used = detections.filter((detection) => detection.score >= trackStart || best.has(detection));
    const missed = tracked.filter((person) => !isDetected(person, used) && person.misses < this.settings.maxMisses);
    return [
      ...used.map(({ box, score }) => ({ box, score, misses: 0 })),
      ...missed.map((person) => ({ ...person, misses: person.misses + 1 })),
    ];
  }

  #bestMatches(tight, detections) {
    const matches = detections.map((detection) => ({ detection, ...this.#match(tight, detection.box) }));
    const matched = matches.filter(({ matches: isMatch }) => isMatch);
    const best = Math.max(...matched.map(({ iou }) => iou));
    return matched.filter(({ iou }) => iou === best).map(({ detection }) => detection);
  }

  /** Returns whether a detection matches or covers the tight box of a person, and their IoU. */
  #match(tight, box) {
    const { minBoxSide, samePersonIou, samePersonCoverage } = this.settings;
    // keypoints on a line, or a single one, have a tight box without an area
    const margins = [0, 1].map((axis) => Math.max(minBoxSide - (tight[axis + 2] - tight[axis]), 0) / 2);
    const grown = tight.map((side, index) => side + (index < 2 ? -1 : 1) * margins[index % 2]);
    const iou = boxIou(grown, box);
    return { matches: iou >= samePersonIou || intersection(grown, box) >= samePersonCoverage * boxArea(grown), iou };
  }

  /** Returns the indices of the best pose of each person, in ascending order. */
  #suppressDuplicates(poses, tracked) {
    const scores = poses.map((pose) => this.#poseScore(pose));
    const order = poses.map((_, index) => index).sort((a, b) => scores[b] - scores[a]);
    let kept = [];
    for (const index of order) {
      if (kept.every((other) => this.#oks(poses[index], poses[other]) <= this.settings.duplicateOks)) kept.push(index);
    }
    kept.sort((a, b) => a - b);
    // a pose that the detector missed may have jumped to a person that it detected
    const detected = kept.filter((index) => tracked[index].misses === 0).map((index) => tightBox(poses[index].keypoints));
    const isDuplicate = (index) => {
      const tight = tightBox(poses[index].keypoints);
      return detected.some((box) => boxIou(tight, box) >= this.settings.samePersonIou);
    };
    return kept.filter((index) => tracked[index].misses === 0 || !isDuplicate(index));
  }

  #poseScore({ scores, boxScore }) {
    const confident = scores.filter((score) => score > this.settings.threshold);
    return (boxScore * confident.reduce((sum, score) => sum + score, 0)) / Math.max(confident.length, 1);
  }

  #oks(pose, other) {
    const area = (boxArea(pose.box) + boxArea(other.box)) / 2;
    const similarities = this.sigmas.map((sigma, index) => {
      const [dx, dy] = [0, 1].map((axis) => pose.keypoints[index][axis] - other.keypoints[index][axis]);
      return Math.exp(-(dx * dx + dy * dy) / (2 * sigma) ** 2 / area / 2);
    });
    return similarities.reduce((sum, value) => sum + value, 0) / similarities.length;
  }

  /** Returns the tracked person for the next frame; null if it is lost. */
  #nextBox(pose, person, image) {
    const { settings } = this;
    const confident = pose.scores.map((score) => score > settings.threshold);
    const before = person.confident ?? confident;
    const count = confident.filter(Boolean).length;
    const still = confident.filter((isConfident, index) => isConfident && before[index]).length;
    const minConfident = Math.min(settings.minConfident, Math.floor((confident.length + 1) / 2));
    if (count < minConfident || still < settings.minConfidentShare * before.filter(Boolean).length) return null;
    const tight = tightBox(pose.keypoints.filter((_, index) => confident[index]));
    const margin = settings.boxMargin * Math.max(tight[2] - tight[0], tight[3] - tight[1]);
    let box = tight.map((side, index) => side + (index < 2 ? -margin : margin));
    if (count < settings.partialShare * confident.length) {
      // few keypoints, as of a head and shoulders, do not show the size of the person: the last box moves with them
      const shift = [0, 1].map((axis) => (person.confident ? center(tight, axis) - center(person.tight, axis) : 0));
      box = moveToContain(person.box.map((side, index) => side + shift[index % 2]), box);
    }
    box = clipBox(box, image);
    if (Math.min(box[2] - box[0], box[3] - box[1]) < settings.minBoxSide) return null;
    return { box, tight, score: person.score, misses: person.misses, confident: before };
  }
}

function tightBox(points) {
  const [x, y] = [0, 1].map((axis) => points.map((point) => point[axis]));
  return [Math.min(...x), Math.min(...y), Math.max(...x), Math.max(...y)];
}

function center(box, axis) {
  return (box[axis] + box[axis + 2]) / 2;
}

/** Moves a box as little as possible, and enlarges it if necessary, to contain another box. */
function moveToContain(box, inner) {
  const sizes = [0, 1].map((axis) => Math.max(box[axis + 2] - box[axis], inner[axis + 2] - inner[axis]));
  const low = [0, 1].map((axis) => Math.min(Math.max(box[axis], inner[axis + 2] - sizes[axis]), inner[axis]));
  return [...low, low[0] + sizes[0], low[1] + sizes[1]];
}
