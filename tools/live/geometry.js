// Crops, resized images and boxes, computed as in posedy: pure functions on arrays.
//
// An image is {data, width, height} with data RGBA uint8, as ImageData; boxes are [x1, y1, x2, y2] in image pixels.
// Integer coordinates are pixel centers.

/** Returns {scale, x, y}, the map from image to crop pixels, crop = scale * image + (x, y), as posedy/geometry.py. */
export function imageToCrop([x1, y1, x2, y2], [width, height], padding) {
  const scale = width / (Math.max(x2 - x1, ((y2 - y1) * width) / height) * padding);
  return { scale, x: width / 2 - (scale * (x1 + x2)) / 2, y: height / 2 - (scale * (y1 + y2)) / 2 };
}

/** Warps an RGB crop (height x width x 3) out of an image, bilinearly; pixels outside the image are black. */
export function warpCrop(image, map, [width, height]) {
  const columns = warpTaps(width, (index) => (index - map.x) / map.scale, image.width);
  const rows = warpTaps(height, (index) => (index - map.y) / map.scale, image.height);
  return interpolate(image, columns, rows);
}

/** Resizes an image to RGB (height x width x 3): bilinearly, or to less than half by averaging areas. */
export function resizeImage(image, [width, height], largestBilinearFactor) {
  const factors = [image.width / width, image.height / height];
  const makeTaps = Math.min(...factors) > largestBilinearFactor ? areaTaps : resizeTaps;
  return interpolate(image, makeTaps(width, factors[0], image.width), makeTaps(height, factors[1], image.height));
}

/** Returns the size [width, height] of an image for the detector, as network_size of its module. */
export function networkSize(width, height, { size, multiple, maxSide, maxExcess }) {
  const ratio = Math.sqrt(height / width);
  const largest = Math.floor(maxSide / multiple);
  const units = [size / ratio / multiple, (size * ratio) / multiple];
  const sides = units.map((unit) => Math.min(Math.max(roundHalfEven(unit), 1), largest));
  const longer = sides[1] > sides[0] ? 1 : 0;
  const allowed = Math.trunc((maxExcess * (size / multiple) ** 2) / sides[1 - longer]);
  sides[longer] = Math.max(Math.min(sides[longer], allowed), 1);
  return sides.map((side) => side * multiple);
}

/** Decodes the detector's outputs to {box, score} of an image, in descending order of scores, without duplicates. */
export function selectBoxes(boxes, scores, networkSize, image, threshold, { nmsIou, maxCandidates, maxBoxes }) {
  const candidates = [];
  scores.forEach((score, index) => {
    if (score >= threshold) candidates.push({ box: Array.from(boxes.subarray(4 * index, 4 * index + 4)), score });
  });
  candidates.sort((a, b) => b.score - a.score); // a stable sort
  const kept = [];
  for (const candidate of candidates.slice(0, maxCandidates)) {
    if (kept.length < maxBoxes && kept.every(({ box }) => boxIou(box, candidate.box) <= nmsIou)) kept.push(candidate);
  }
  const factors = [image.width / networkSize[0], image.height / networkSize[1]];
  return kept
    .map(({ box, score }) => ({ box: clipBox(box.map((side, index) => side * factors[index % 2]), image), score }))
    .filter(({ box }) => box[2] > box[0] && box[3] > box[1]);
}

/** Returns the IoU of two boxes; 0 if both are empty. */
export function boxIou(a, b) {
  const overlap = intersection(a, b);
  const union = boxArea(a) + boxArea(b) - overlap;
  return union > 0 ? overlap / union : 0;
}

/** Returns the area of the intersection of two boxes. */
export function intersection(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(width, 0) * Math.max(height, 0);
}

/** Returns the area of a box. */
export function boxArea(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

/** Clips a box to an image. */
export function clipBox(box, { width, height }) {
  return box.map((side, index) => Math.min(Math.max(side, 0), index % 2 ? height : width));
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

// The taps of an output pixel along an axis: the index of the first input pixel, and the weights from it.

function warpTaps(count, toImage, size) {
  return Array.from({ length: count }, (_, index) => {
    const position = toImage(index);
    const first = Math.floor(position);
    const weights = [1 - (position - first), position - first];
    // pixels outside the image are black: their weights are left out
    if (first === -1) return { first: 0, weights: [weights[1]] };
    if (first === size - 1) return { first, weights: [weights[0]] };
    return first >= 0 && first < size ? { first, weights } : { first: 0, weights: [] };
  });
}

function resizeTaps(count, factor, size) {
  return Array.from({ length: count }, (_, index) => {
    const position = Math.min(Math.max((index + 0.5) * factor - 0.5, 0), size - 1);
    const first = Math.min(Math.floor(position), Math.max(size - 2, 0));
    return size === 1 ? { first, weights: [1] } : { first, weights: [1 - (position - first), position - first] };
  });
}

function areaTaps(count, factor, size) {
  return Array.from({ length: count }, (_, index) => {
    const [start, end] = [index * factor, Math.min((index + 1) * factor, size)];
    const first = Math.floor(start);
    const weights = [];
    for (let pixel = first; pixel < end - 1e-6; pixel++) {
      weights.push((Math.min(pixel + 1, end) - Math.max(pixel, start)) / (end - start));
    }
    return { first, weights };
  });
}

/** Interpolates along both axes; returns RGB uint8 (rows x columns x 3). */
function interpolate(image, columns, rows) {
  const output = new Uint8Array(rows.length * columns.length * 3);
  const stride = 4 * image.width;
  const line = new Float32Array(columns.length * 3);
  let target = 0;
  for (const row of rows) {
    line.fill(0);
    row.weights.forEach((rowWeight, offset) => {
      const start = (row.first + offset) * stride;
      for (let column = 0; column < columns.length; column++) {
        const { first, weights } = columns[column];
        for (let tap = 0, source = start + 4 * first; tap < weights.length; tap++, source += 4) {
          const weight = rowWeight * weights[tap];
          line[3 * column] += weight * image.data[source];
          line[3 * column + 1] += weight * image.data[source + 1];
          line[3 * column + 2] += weight * image.data[source + 2];
        }
      }
    });
    for (let index = 0; index < line.length; index++) output[target++] = Math.round(line[index]);
  }
  return output;
}
