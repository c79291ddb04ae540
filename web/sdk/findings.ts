/**
 * What models tell of a frame beside boxes, mirrored from the Rust crate `saccade-signaling`, with guards.
 *
 * @module
 */

import { type Guard, isNumber, isString, list, nullable, numbers, optional, shape } from "./guards.js";

/** A point of an object: x and y in pixels of the upright frame, and its score, 0..1. */
export type Keypoint = [x: number, y: number, score: number];

/** A class of the whole frame. */
export interface Label {
  /** Index of the class in the model. */
  class_id: number;
  /** Name of the class. */
  class: string;
  /** Score, 0..1. */
  score: number;
}

/** A mask in the run lengths of COCO. */
export interface Rle {
  /** Height and width of the mask; `mask_box` of the result says where it lies in the frame. */
  size: [height: number, width: number];
  /** Lengths of runs down the columns, outside and inside by turns, in COCO's compressed text. */
  counts: string;
}

/** All pixels of one class. */
export interface Segment {
  /** Index of the class in the model. */
  class_id: number;
  /** Name of the class. */
  class: string;
  /** Share of the frame that it covers, 0..1. */
  area_ratio: number;
  /** Corners `[x1, y1, x2, y2]` around all of it, in pixels of the upright frame. */
  box: [number, number, number, number];
  /**
   * Its outlines with `masks: "outlines"`: closed rings of points in pixels of the upright frame. A ring inside another one
   * is a hole (even-odd rule).
   */
  polygons?: [x: number, y: number][][];
  /** Its pixels with `masks: "rle"`. */
  rle?: Rle;
  /** Small outlines that were left out, or 1 for its run lengths, where the message would have become too large. */
  left_out?: number;
}

/** An output of a model, as it is. */
export interface Tensor {
  name: string;
  /** Its sides, the batch first: 1. */
  shape: number[];
  /** Its values, row by row, `null` for one that is no number; `null` altogether where they are left out. */
  data: (number | null)[] | null;
  /** How many values are left out, since a message would have become too large. */
  left_out?: number;
}

/** Whether a value is a {@link Keypoint}. */
export const keypoint: Guard<Keypoint> = numbers<Keypoint>(3);

/** Whether a value is a {@link Label}. */
export const label: Guard<Label> = shape<Label>({ class_id: isNumber, class: isString, score: isNumber });

/** Whether a value is a {@link Segment}. */
export const segment: Guard<Segment> = shape<Segment>({
  class_id: isNumber,
  class: isString,
  area_ratio: isNumber,
  box: numbers<Segment["box"]>(4),
  polygons: optional(list(list(numbers<[number, number]>(2)))),
  rle: optional(shape<Rle>({ size: numbers<Rle["size"]>(2), counts: isString })),
  left_out: optional(isNumber),
});

/** Whether a value is a {@link Tensor}. */
export const tensor: Guard<Tensor> = shape<Tensor>({
  name: isString,
  shape: list(isNumber),
  data: nullable(list(nullable(isNumber))),
  left_out: optional(isNumber),
});
