// The four types that a flag's value can have, and how each is read from text.

/** The types, in the order in which the editor offers them. */
export const TYPES = [
  { key: "null", title: "No value" },
  { key: "boolean", title: "Boolean" },
  { key: "integer", title: "Integer" },
  { key: "string", title: "String" },
];

/** The type of a value. */
export function typeOf(value) {
  if (value === null || value === undefined) return "null";
  if (typeof value === "number") return "integer";
  return typeof value;
}

/** A value as text, without quotes. */
export function textOf(value) {
  return value === null || value === undefined ? "null" : String(value);
}

/** Reads `text` as `type`: `{value}` or `{error}`. */
export function parseValue(type, text) {
  if (type === "null") return { value: null };
  if (type === "boolean") return { value: text === "true" };
  if (type === "string") return { value: text };
  const digits = text.trim();
  if (!/^-?\d+$/.test(digits)) return { error: "An integer has only digits. Keep a fraction as a string." };
  const value = Number(digits);
  if (!Number.isSafeInteger(value)) return { error: "This integer is too large. Keep it as a string." };
  return { value };
}
