/** What a reader reports of a file, with the parts that are missing from it as values. */
import { Diagnostics } from '../core/errors.ts';

/** A part that a file lists but does not hold. */
export interface MissingPart {
  what: 'memory' | 'notes';
  /** `cut off`: the file ends before it. `never stored`: the file's own headers say that it is not there. */
  how: 'cut off' | 'never stored';
  /** One clause for people, as in the diagnostic. */
  text: string;
}

/** The diagnostics of one input. */
export class InputDiagnostics extends Diagnostics {
  readonly missing: MissingPart[] = [];

  /** What was reported so far, for another image of the same input. */
  copy(): InputDiagnostics {
    const other = new InputDiagnostics();
    other.addAll(this.list);
    other.missing.push(...this.missing);
    return other;
  }

  /** Reports memory or notes that lie beyond the file's end. */
  addCutOff(what: MissingPart['what'], text: string, where?: Record<string, string>): void {
    this.missing.push({ what, how: 'cut off', text });
    this.add('loss', what === 'memory' ? 'input-truncated' : 'notes-truncated', text, where);
  }

  /** Reports memory that the headers list as not stored. */
  addNeverStored(text: string, where?: Record<string, string>): void {
    this.missing.push({ what: 'memory', how: 'never stored', text });
    this.add('loss', 'memory-absent', text, where);
  }
}
