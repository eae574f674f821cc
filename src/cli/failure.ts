/** What a failure means for people and programs that ran the command. */
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { EXIT, EXIT_OF_KIND } from '../core/exit-codes.ts';
import { renderError } from './text/render.ts';

const bug = (error: unknown) =>
  new Elf2dmpError({
    code: 'internal',
    kind: 'aborted',
    message: `internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    hint: 'this is a bug in elf2dmp: please report it with the text above',
  });

/** How V8 and WebAssembly say that there is no memory. */
const NO_MEMORY = /allocation failed|could not allocate|out of memory|array buffer|typed array length/i;

/** The error where the process ran into a limit (`ulimit -n`, `ulimit -v`), which can happen anywhere. */
function exhausted(error: unknown): Elf2dmpError | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code = '', path } = error as NodeJS.ErrnoException;
  if (code === 'EMFILE' || code === 'ENFILE') return ioError('open', path ?? 'a file', error);
  if (code !== 'ENOMEM' && code !== 'ERR_MEMORY_ALLOCATION_FAILED' && !NO_MEMORY.test(error.message)) return undefined;
  return new Elf2dmpError({
    code: 'out-of-memory',
    kind: 'io-transient',
    message: `there is not enough memory: ${error.message}`,
    hint: 'raise the limit (`ulimit -v`) or free memory, then run it again',
    cause: error,
  });
}

/** Any failure as an error with a code; what is none of ours is a limit of the system, or a bug. */
export const asKnown = (error: unknown): Elf2dmpError =>
  error instanceof Elf2dmpError ? error : (exhausted(error) ?? bug(error));

/** The exit code for an error. */
export const exitCodeOfError = ({ code, kind }: Elf2dmpError): number =>
  code === 'internal' ? EXIT.internal : EXIT_OF_KIND[kind];

/** An error with its hint, ready to print. `printable` would escape the line breaks of a bug's stack trace. */
export function renderFailure(error: Elf2dmpError, verbose: boolean): string {
  if (error.code === 'internal') return `elf2dmp: ${error.message}\n  hint: ${error.details.hint}\n`;
  return renderError(error, verbose);
}
