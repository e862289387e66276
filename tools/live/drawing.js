// Drawing of poses on a canvas, as posedy/drawing.py: limbs colored by side, with a dark outline for any background.

/** Draws poses {keypoints, scores}; keypoints with scores up to the threshold of the settings are faint. */
export function drawPoses(context, poses, skeleton, settings) {
  const persons = poses.map((pose) => ({
    pose,
    confident: pose.scores.map((score) => score > settings.threshold),
    drawn: pose.scores.map((score) => score > 0),
  }));
  context.lineCap = "round";
  context.globalAlpha = settings.faintOpacity;
  persons.forEach((person) => drawPerson(context, person, skeleton, settings, true));
  context.globalAlpha = 1;
  persons.forEach((person) => drawPerson(context, person, skeleton, settings, false));
}

/** Draws either the faint or the confident keypoints and limbs of a person. */
function drawPerson(context, { pose, confident, drawn }, skeleton, settings, faint) {
  const { keypoints } = pose;
  const width = lineWidth(keypoints.filter((_, index) => (confident.includes(true) ? confident : drawn)[index]), settings);
  const outline = width < 6 ? 1 : Math.floor(width / 4);
  const radius = 0.75 * (width + 1);
  const isFaint = (index) => !confident[index];
  const limbs = skeleton.limbs
    .map((ends, index) => ({ ends, color: skeleton.limbColors[index] }))
    .filter(({ ends }) => ends.every((end) => drawn[end]) && ends.some(isFaint) === faint);
  const discs = keypoints
    .map((point, index) => ({ point, index, color: skeleton.keypointColors[index] }))
    .filter(({ index }) => drawn[index] && isFaint(index) === faint);
  // all outlines first, so that none crosses a colored line
  limbs.forEach(({ ends }) => drawLine(context, keypoints, ends, settings.outline, width + 2 * outline));
  discs.forEach(({ point }) => drawDisc(context, point, settings.outline, radius + outline));
  limbs.forEach(({ ends, color }) => drawLine(context, keypoints, ends, color, width));
  discs.forEach(({ point, color }) => drawDisc(context, point, color, radius));
}

function lineWidth(points, { personPixelsPerLinePixel, maxLineWidth }) {
  const extents = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    return Math.max(...values) - Math.min(...values);
  });
  const width = points.length ? Math.round(Math.max(...extents) / personPixelsPerLinePixel) : 0;
  return Math.min(Math.max(width, 1), maxLineWidth);
}

// Integer coordinates are pixel centers in posedy, and corners of pixels on a canvas.

function drawLine(context, keypoints, [start, end], color, width) {
  context.strokeStyle = `rgb(${color})`;
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(keypoints[start][0] + 0.5, keypoints[start][1] + 0.5);
  context.lineTo(keypoints[end][0] + 0.5, keypoints[end][1] + 0.5);
  context.stroke();
}

function drawDisc(context, [x, y], color, radius) {
  context.fillStyle = `rgb(${color})`;
  context.beginPath();
  context.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
  context.fill();
}
