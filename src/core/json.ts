/** JSON as text that is safe to show: guests' strings and file names can hold anything. */

/** As `printable` escapes for terminals, without those that `JSON.stringify` escapes: C1, format and separator characters. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/**
 * As `JSON.stringify`, with control and format characters as escapes, which mean the same to every reader of JSON.
 *
 * @param indent line breaks and spaces for people
 */
export const toJson = (value: unknown, indent?: number): string =>
  // Outside of strings there are only line breaks and spaces.
  JSON.stringify(value, null, indent).replace(UNSAFE, (c) => (c === '\n' ? c : escaped(c)));

const escaped = (text: string): string =>
  Array.from({ length: text.length }, (_, i) => `\\u${text.charCodeAt(i).toString(16).padStart(4, '0')}`).join('');
