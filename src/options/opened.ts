/** What a caller may give instead of a path. */

/** An input that was opened, and that stays open after a call. `openGuest` makes them. */
export abstract class OpenedInput {
  /** Its name, as it was given: a path, or `-` for standard input. */
  abstract readonly input: string;
}
