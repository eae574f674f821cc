/**
 * The one error base, and diagnostics: what is wrong with which file at which offset, what was
 * expected, what was found, and what to do next.
 */
import { getSystemErrorMap } from 'node:util';
import type { DiagnosticCode, ErrorCode, ErrorCodeOf, ErrorKind, IoErrorCode, Severity, SeverityOf } from './codes.ts';
import { hex } from './units.ts';

export type { DiagnosticCode, ErrorCode, ErrorKind, Severity } from './codes.ts';

/** Where and how something failed, apart from its code and kind. */
export interface ErrorContext {
  /** One sentence without final stop: what is wrong. */
  message: string;
  file?: string | undefined;
  /** Name of the structure in its specification: `Elf64_Phdr[3]`. */
  structure?: string | undefined;
  field?: string | undefined;
  /** Byte offset in the file, or a guest address where the message says so. */
  offset?: number | bigint | undefined;
  expected?: string | undefined;
  actual?: string | undefined;
  /** What to do next. */
  hint?: string | undefined;
  /** Lines of further detail: what was tried and why each failed. */
  attempts?: readonly string[] | undefined;
  cause?: unknown;
}

/** Details of an error of kind `K`. */
export interface ErrorOf<K extends ErrorKind> extends ErrorContext {
  /** Stable identifier in kebab case, for scripts and tests: `elf-not-core`. */
  code: ErrorCodeOf<K>;
  kind: K;
}

/** All details of an error; its code has to be one of its kind, see `ERRORS`. */
export type ErrorDetails = { [K in ErrorKind]: ErrorOf<K> }[ErrorKind];

/** Every failure that is not a bug of ours. */
export class Elf2dmpError extends Error {
  readonly code: ErrorCode;
  readonly kind: ErrorKind;
  readonly details: ErrorDetails;

  constructor(details: ErrorDetails) {
    super(describe(details), details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'Elf2dmpError';
    this.code = details.code;
    this.kind = details.kind;
    this.details = details;
  }
}

/** Makes errors about one file. */
export type Fail<Kinds extends ErrorKind> = <K extends Kinds>(
  kind: K,
  details: Omit<ErrorOf<K>, 'kind' | 'file'>,
) => Elf2dmpError;

/** Makes errors about `file`. */
export const failIn =
  (file: string): Fail<ErrorKind> =>
  (kind, details) =>
    // TypeScript does not see that an `ErrorOf<K>` is one of the union's members for every K.
    new Elf2dmpError({ ...details, kind, file } as ErrorDetails);

function describe(d: ErrorDetails): string {
  const place = [
    d.structure && (d.field ? `${d.structure}.${d.field}` : d.structure),
    d.offset === undefined ? undefined : `at offset ${hex(d.offset)}`,
  ]
    .filter(Boolean)
    .join(' ');
  const found = [d.expected && `expected ${d.expected}`, d.actual && `found ${printable(d.actual)}`]
    .filter(Boolean)
    .join(', ');
  // JSON's escapes leave DEL as it is.
  const message = printable(d.message);
  let text = d.file ? `${printable(d.file)}: ${message}` : message;
  if (place || found) text += ` (${[place, found].filter(Boolean).join(': ')})`;
  return text;
}

/**
 * Text from a guest or a file name, made safe for terminals and logs: control and format characters
 * (which could move the cursor, hide text or fake a line) become escapes.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0)!.toString(16)}}`);
}

const TRANSIENT = new Set([
  'ENOSPC',
  'EDQUOT',
  'EIO',
  'EAGAIN',
  'EBUSY',
  'EINTR',
  'EMFILE',
  'ENFILE',
  'ENOMEM',
  'ETIMEDOUT',
  'ESTALE',
]);

const IO_HINTS: Record<string, string> = {
  ENOENT: 'check the path',
  EACCES: 'check the owner and mode of the file and of its directory',
  EPERM: 'check the owner and mode of the file and of its directory, and whether they are immutable (`lsattr`)',
  EISDIR: 'name a file, not a directory',
  ENOSPC: 'free space or name an output on another file system; nothing was left behind',
  EROFS: 'name an output on a writable file system',
  EFBIG: 'the file system or `ulimit -f` does not allow a file of this size',
  EIO: 'the device reported an error: check the kernel log, and try again',
};

const READ_DENIED =
  'QEMU writes its dumps with mode 0400 as its own user: run as that user or root, or change the mode';

/** Wraps an error of Node's file system calls. */
export function ioError(
  action: string,
  file: string,
  cause: unknown,
  hint: string | undefined = undefined,
): Elf2dmpError {
  const errno = (cause as NodeJS.ErrnoException).code ?? '';
  const usual = errno === 'EACCES' && /^(?:open|read)\b/.test(action) ? READ_DENIED : IO_HINTS[errno];
  const details = { message: `cannot ${action}: ${errnoText(cause)}`, file, hint: hint ?? usual, cause };
  if (!errno.startsWith('E')) return new Elf2dmpError({ ...details, code: 'io-unknown', kind: 'io-permanent' });
  const code = `io-${errno.toLowerCase()}` as IoErrorCode;
  return new Elf2dmpError({ ...details, code, kind: TRANSIENT.has(errno) ? 'io-transient' : 'io-permanent' });
}

function errnoText(cause: unknown): string {
  const { code, errno = 0, message } = cause as NodeJS.ErrnoException;
  // Node's message is "ENOENT: no such file or directory, open 'path'": keep the middle. That of a process has none.
  const middle = message?.match(/^[A-Z0-9]+: ([^,]+)/)?.[1];
  return middle ?? getSystemErrorMap().get(errno)?.[1] ?? code ?? String(cause);
}

/** Something that was survived. Losses make the outcome "written, with losses". */
export interface Diagnostic {
  severity: Severity;
  /** Stable identifier in kebab case, see `DIAGNOSTICS`. */
  code: DiagnosticCode;
  message: string;
  /** Guest addresses or file offsets, named: `{ physical: '0x1000' }`. */
  where?: Record<string, string>;
}

/** Collects diagnostics; equal ones are kept once. */
export class Diagnostics {
  readonly #list: Diagnostic[] = [];
  readonly #seen = new Set<string>();

  add<C extends DiagnosticCode>(
    severity: SeverityOf<C>,
    code: C,
    message: string,
    where?: Record<string, string>,
  ): void {
    this.addAll([{ severity, code, message, ...(where ? { where } : {}) }]);
  }

  /** Adds what another collector, or a plan, has. */
  addAll(diagnostics: Iterable<Diagnostic>): void {
    for (const diagnostic of diagnostics) {
      const key = `${diagnostic.code}\n${diagnostic.message}`;
      if (this.#seen.has(key)) continue;
      this.#seen.add(key);
      this.#list.push(diagnostic);
    }
  }

  /** Everything that was added, in that order. */
  get list(): readonly Diagnostic[] {
    return this.#list;
  }

  /** Those that make the outcome `losses`. */
  get losses(): readonly Diagnostic[] {
    return this.#list.filter((d) => d.severity === 'loss');
  }

  get outcome(): 'good' | 'losses' {
    return this.losses.length > 0 ? 'losses' : 'good';
  }

  /** Several collections as one. */
  static join(...parts: Iterable<Diagnostic>[]): Diagnostics {
    const all = new Diagnostics();
    for (const part of parts) all.addAll(part);
    return all;
  }
}
