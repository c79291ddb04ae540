import type { Detection, Label, Line, Point, Segment, SessionResult, Zone } from "./wire.js";

/** What {@link drawDetections} draws. */
export interface DrawOptions {
  /** Outlines, keypoints and tinted segments; on by default. */
  boxes?: boolean;
  /** Class, score and object id beside each box, and classes of the whole frame in a corner; on by default. */
  labels?: boolean;
  /** Opacity, 0..1; 1 by default. */
  opacity?: number;
}

/** The colours in which the server draws; told apart also by people with colour-blindness. By class id, modulo length. */
const PALETTE = ["#eb5e14", "#56bef0", "#f0e442", "#00a87d", "#d682b0", "#2878cd", "#f2a50a", "#e1e1e6"];

/** The colour of a class, as a CSS colour. */
export function classColor(classId: number): string {
  return PALETTE[((classId % PALETTE.length) + PALETTE.length) % PALETTE.length] ?? "#ffffff";
}

/** How much of a segment's colour there is over the picture. */
const TINT = 0.42;
/** Lines of the list in the corner at most. */
const LINES = 8;

/**
 * Draws all that a result tells of its frame over a picture that fills the canvas: segments, detections with their keypoints,
 * and classes of the whole frame.
 */
export function drawResult(context: CanvasRenderingContext2D, result: SessionResult, options: DrawOptions = {}): void {
  const { boxes = true, labels = true, opacity = 1 } = options;
  const { segments = [], classes = [] } = result;
  if (boxes && segments.length > 0) drawSegments(context, segments, result, opacity);
  drawDetections(context, result.detections, result, options);
  if (labels) drawList(context, [...classes.map(lineOfLabel), ...segments.map(lineOfSegment)], opacity);
}

/** A line of the list in the corner: its text and the class whose colour it has. */
type ListLine = [text: string, classId: number];

function lineOfLabel({ class: name, class_id, score }: Label): ListLine {
  return [`${name} ${score.toFixed(2)}`, class_id];
}

function lineOfSegment({ class: name, class_id, area_ratio }: Segment): ListLine {
  return [`${name} ${Math.round(area_ratio * 100)} %`, class_id];
}

/** Fills outlines by the even-odd rule; segments without them, such as those with run lengths, are left out. */
function drawSegments(
  context: CanvasRenderingContext2D,
  segments: readonly Segment[],
  size: { width: number; height: number },
  opacity: number,
): void {
  const scaleX = context.canvas.width / Math.max(1, size.width);
  const scaleY = context.canvas.height / Math.max(1, size.height);
  context.save();
  for (const { class_id, polygons = [] } of segments) {
    const path = new Path2D();
    for (const ring of polygons) {
      const outline = pathOf(ring.map(([x, y]): Point => [x * scaleX, y * scaleY]));
      outline.closePath();
      path.addPath(outline);
    }
    context.globalAlpha = opacity * TINT;
    context.fillStyle = classColor(class_id);
    context.fill(path, "evenodd");
    context.globalAlpha = opacity;
    context.strokeStyle = classColor(class_id);
    context.lineWidth = Math.max(1, Math.round(Math.min(context.canvas.width, context.canvas.height) / 320));
    context.stroke(path);
  }
  context.restore();
}

function drawList(context: CanvasRenderingContext2D, lines: readonly ListLine[], opacity: number): void {
  const { width, height } = context.canvas;
  const text = Math.max(11, Math.round(Math.min(width, height) / 32));
  context.save();
  context.globalAlpha = opacity;
  context.textBaseline = "middle";
  context.font = `600 ${text}px system-ui, sans-serif`;
  for (const [index, [line, classId]] of lines.slice(0, LINES).entries()) {
    // Labels lie above the place that they are given.
    drawLabel(context, line, text / 2, text / 2 + (index + 1) * 1.7 * text, text, classColor(classId));
  }
  context.restore();
}

/**
 * Draws detections over a picture that fills the canvas.
 *
 * @param size width and height of the frame that the boxes refer to; they are scaled to the canvas.
 */
export function drawDetections(
  context: CanvasRenderingContext2D,
  detections: readonly Detection[],
  size: { width: number; height: number },
  { boxes = true, labels = true, opacity = 1 }: DrawOptions = {},
): void {
  const { width, height } = context.canvas;
  const scaleX = width / Math.max(1, size.width);
  const scaleY = height / Math.max(1, size.height);
  const stroke = Math.max(2, Math.round(Math.min(width, height) / 220));
  const text = Math.max(11, Math.round(Math.min(width, height) / 32));
  context.save();
  context.globalAlpha = opacity;
  context.lineJoin = "round";
  context.textBaseline = "middle";
  context.font = `600 ${text}px system-ui, sans-serif`;
  for (const detection of [...detections].reverse()) {
    const [x1, y1, x2, y2] = detection.box;
    const left = x1 * scaleX;
    const top = y1 * scaleY;
    const color = classColor(detection.class_id);
    if (boxes) {
      context.lineWidth = stroke + 2;
      context.strokeStyle = "rgba(0, 0, 0, 0.55)";
      context.strokeRect(left, top, (x2 - x1) * scaleX, (y2 - y1) * scaleY);
      context.lineWidth = stroke;
      context.strokeStyle = color;
      context.strokeRect(left, top, (x2 - x1) * scaleX, (y2 - y1) * scaleY);
      for (const [x, y] of detection.keypoints ?? []) drawDot(context, x * scaleX, y * scaleY, stroke + 1, color);
    }
    if (labels) drawLabel(context, labelOf(detection), left - stroke / 2, top, text, color);
  }
  context.restore();
}

function drawDot(context: CanvasRenderingContext2D, x: number, y: number, radius: number, color: string): void {
  context.beginPath();
  context.arc(x, y, radius + 1, 0, 2 * Math.PI);
  context.fillStyle = "rgba(0, 0, 0, 0.6)";
  context.fill();
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = color;
  context.fill();
}

/** Text of a detection's label as the server writes it, such as `helmet 0.91 #7`. */
export function labelOf({ class: name, score, object_id }: Detection): string {
  const id = object_id === null ? "" : ` #${object_id}`;
  return `${name} ${score.toFixed(2)}${id}`;
}

/** What {@link drawShapes} draws; session options have it. */
export interface Shapes {
  zones: readonly Zone[];
  lines: readonly Line[];
}

/** The colours of zones and of lines. */
const SHAPE_COLORS = { zone: "#3fd0bc", line: "#f5c063" };

/**
 * Draws zones and lines, each with its name, over a picture that fills the canvas. A line's arrow points from its left to
 * its right.
 */
export function drawShapes(context: CanvasRenderingContext2D, { zones, lines }: Shapes): void {
  const { width, height } = context.canvas;
  const stroke = Math.max(2, Math.round(Math.min(width, height) / 240));
  const text = Math.max(11, Math.round(Math.min(width, height) / 34));
  const at = ([x, y]: Point): Point => [x * width, y * height];
  const draw = (path: Path2D, color: string): void => {
    context.lineWidth = stroke + 2;
    context.strokeStyle = "rgba(0, 0, 0, 0.55)";
    context.stroke(path);
    context.lineWidth = stroke;
    context.strokeStyle = color;
    context.stroke(path);
  };
  context.save();
  context.lineJoin = "round";
  context.lineCap = "round";
  context.textBaseline = "middle";
  context.font = `600 ${text}px system-ui, sans-serif`;
  for (const { name, polygon } of zones) {
    const corners = polygon.map(at);
    const [first] = corners;
    if (!first) continue;
    const path = pathOf(corners);
    path.closePath();
    context.fillStyle = "rgba(63, 208, 188, 0.12)";
    context.fill(path);
    draw(path, SHAPE_COLORS.zone);
    const top = corners.reduce((highest, corner) => (corner[1] < highest[1] ? corner : highest), first);
    drawLabel(context, name, ...top, text, SHAPE_COLORS.zone);
  }
  for (const { name, points } of lines) {
    const ends: [Point, Point] = [at(points[0]), at(points[1])];
    draw(pathOf(ends), SHAPE_COLORS.line);
    draw(pathOf(arrowOf(ends, 7 * stroke)), SHAPE_COLORS.line);
    drawLabel(context, name, ...ends[0], text, SHAPE_COLORS.line);
  }
  context.restore();
}

/**
 * The arrow of a line, in pixels: from the line's middle to its right by `length`, then both sides of the head. Right is
 * that of somebody who looks from the first end to the second.
 */
export function arrowOf([[x1, y1], [x2, y2]]: [Point, Point], length: number): Point[] {
  const whole = Math.hypot(x2 - x1, y2 - y1) || 1;
  const along: Point = [(x2 - x1) / whole, (y2 - y1) / whole];
  const right: Point = [-along[1], along[0]];
  const middle: Point = [(x1 + x2) / 2, (y1 + y2) / 2];
  const point = (rightwards: number, forwards: number): Point => [
    middle[0] + rightwards * right[0] + forwards * along[0],
    middle[1] + rightwards * right[1] + forwards * along[1],
  ];
  const tip = point(length, 0);
  const back = 0.6 * length;
  const wing = 0.4 * length;
  return [middle, tip, point(back, wing), tip, point(back, -wing)];
}

function pathOf(points: readonly Point[]): Path2D {
  const path = new Path2D();
  for (const [x, y] of points) path.lineTo(x, y);
  return path;
}

function drawLabel(
  context: CanvasRenderingContext2D,
  label: string,
  left: number,
  boxTop: number,
  text: number,
  color: string,
): void {
  const padding = Math.round(text * 0.35);
  const width = Math.ceil(context.measureText(label).width) + 2 * padding;
  const height = text + 2 * Math.round(padding * 0.7);
  const x = Math.max(0, Math.min(left, context.canvas.width - width));
  const y = boxTop - height >= 0 ? boxTop - height : boxTop;
  context.fillStyle = color;
  context.fillRect(x, y, width, height);
  context.fillStyle = "#0b0d10";
  context.fillText(label, x + padding, y + height / 2 + 1);
}
