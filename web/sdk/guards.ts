/** Whether a value that came from outside is a `T`. */
export type Guard<T> = (value: unknown) => value is T;

/** Whether `value` is an object of JSON. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether `value` is a string. */
export const isString: Guard<string> = (value) => typeof value === "string";
/** Whether `value` is a finite number. */
export const isNumber: Guard<number> = (value): value is number => typeof value === "number" && Number.isFinite(value);
/** Whether `value` is true or false. */
export const isBoolean: Guard<boolean> = (value) => typeof value === "boolean";

/** What may be absent. */
export function optional<T>(guard: Guard<T>): Guard<T | undefined> {
  return (value): value is T | undefined => value === undefined || guard(value);
}

/** What may be `null`. */
export function nullable<T>(guard: Guard<T>): Guard<T | null> {
  return (value): value is T | null => value === null || guard(value);
}

/** A list of such values. */
export function list<T>(guard: Guard<T>): Guard<T[]> {
  return (value): value is T[] => Array.isArray(value) && value.every(guard);
}

/** A list of so many numbers. */
export function numbers<T extends number[]>(length: number): Guard<T> {
  return (value): value is T => Array.isArray(value) && value.length === length && value.every(isNumber);
}

/** One of these texts. */
export function literal<const T extends string>(...texts: T[]): Guard<T> {
  return (value): value is T => (texts as unknown[]).includes(value);
}

/** An object with at least these fields. */
export function shape<T>(fields: { [K in keyof T]-?: Guard<T[K]> }): Guard<T> {
  const entries = Object.entries(fields) as [string, Guard<unknown>][];
  return (value): value is T => isRecord(value) && entries.every(([key, guard]) => guard(value[key]));
}
