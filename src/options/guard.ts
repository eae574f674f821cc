/** The library's door: options are checked on the way in, and nothing but `Elf2dmpError` comes out. */
import { Elf2dmpError } from '../core/errors.ts';
import { checkCall } from './check.ts';
import type { Call } from './row.ts';

/** A function of the library that takes one object of options. */
export const checked =
  <Options extends object, Result>(call: Call, work: (options: Options) => Promise<Result>) =>
  (options: Options): Promise<Result> =>
    guarded(options, () => {
      checkCall(call, options);
      return work(options);
    });

/** One that takes what it works on first, which `check` throws `Elf2dmpError` for if it is not that. */
export const checkedOn =
  <Subject, Options extends object, Result>(
    call: Call,
    check: (subject: unknown) => void,
    work: (subject: Subject, options: Options) => Promise<Result>,
  ) =>
  (subject: Subject, options: Options = {} as Options): Promise<Result> =>
    guarded(options, () => {
      check(subject);
      checkCall(call, options);
      return work(subject, options);
    });

async function guarded<Result>(options: { signal?: unknown }, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof Elf2dmpError ? error : wrapped(options, error);
  }
}

/** A signal may have any reason, and callbacks may throw anything. */
function wrapped(options: { signal?: unknown } | undefined | null, cause: unknown): Elf2dmpError {
  const signal = options?.signal;
  if (signal instanceof AbortSignal && signal.aborted) {
    return new Elf2dmpError({ code: 'aborted', kind: 'aborted', message: 'ended by its signal', cause });
  }
  return new Elf2dmpError({
    code: 'internal',
    kind: 'aborted',
    message: `unexpected error: ${cause instanceof Error ? cause.message : String(cause)}`,
    hint: 'unless a callback threw it, this is a bug in elf2dmp: please report it',
    cause,
  });
}
