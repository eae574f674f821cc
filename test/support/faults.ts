/** File calls that go wrong at a chosen one, as the system's would. */
import { FILE_CALLS, type FileCalls } from '../../src/files/file-calls.ts';

export type Fault =
  /** The call fails and has done nothing. */
  | 'fails'
  /** It was done, but fails. */
  | 'fails-late'
  /** The process ends before it: none of the later ones is made either. */
  | 'dies';

const HARMLESS = new Set(['read', 'stat', 'lock', 'openForWriting']);

/** The calls among those that a run made at which `fault` is something of its own. */
export const faultyAt = (made: readonly string[], fault: Fault): [at: number, name: string][] =>
  [...made.entries()].filter(([, name]) => fault === 'fails' || !HARMLESS.has(name));

export interface FaultyCalls extends FileCalls {
  /** Names of the calls made so far. */
  readonly made: string[];
  /** Whether it came to the fault. */
  readonly wentWrong: boolean;
  /** Closes what a process that died would have had open. */
  bury(): Promise<void>;
}

/** @param at the call, counted from 0, that goes wrong; none if left out */
export function faultyCalls(at = Number.POSITIVE_INFINITY, fault: Fault = 'fails'): FaultyCalls {
  const made: string[] = [];
  const open = new Set<number>();
  let wentWrong = false;
  const failure = () => {
    wentWrong = true;
    return Object.assign(new Error('EIO: i/o error, injected'), { code: 'EIO' });
  };
  const bury = async () => {
    for (const fd of open) await FILE_CALLS.close(fd);
    open.clear();
  };
  return new Proxy(FILE_CALLS as FaultyCalls, {
    get(_, name: keyof FaultyCalls) {
      if (name === 'made') return made;
      if (name === 'bury') return bury;
      if (name === 'wentWrong') return wentWrong;
      return async (...args: unknown[]) => {
        const index = made.push(name) - 1;
        if (fault === 'dies' ? index >= at : index === at && fault === 'fails' && name !== 'close') throw failure();
        // biome-ignore lint/suspicious/noExplicitAny: passed on as they came.
        const result = await (FILE_CALLS[name] as any)(...args);
        if (name === 'open') open.add(result as number);
        if (name === 'close') open.delete(args[0] as number);
        // A file that could not be opened is not open; one that could not be closed is closed.
        if (index === at && (name === 'close' || (fault === 'fails-late' && name !== 'open'))) throw failure();
        return result;
      };
    },
  });
}
