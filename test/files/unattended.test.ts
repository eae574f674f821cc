import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-unattended-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const source = (path: string) => JSON.stringify(fileURLToPath(new URL(`../../src/${path}`, import.meta.url)));

/** A process that computes until the file `go` is there, and gets a signal meanwhile. */
async function signalled(first: string): Promise<[code: number | null, signal: NodeJS.Signals | null]> {
  const script = join(dir, 'work.mts');
  writeFileSync(
    script,
    `import { existsSync, writeSync } from 'node:fs';
    import { LISTENED_SIGNALS, ON_SUDDEN_END } from ${source('core/sudden-end.ts')};
    import { prepareUnattended, unattended } from ${source('files/unattended.ts')};
    process.on('SIGTERM', () => process.exit(9));
    ${first}
    await prepareUnattended();
    unattended(() => {
      writeSync(1, 'ready');
      while (!existsSync(${JSON.stringify(join(dir, 'go'))}));
    });
    // Now it is listened to again.
    if (process.argv[2] === 'again') process.kill(process.pid, 'SIGTERM');
    setTimeout(() => process.exit(1), 60_000);`,
  );
  const child = spawn(process.execPath, ['--import', 'tsx', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  await Promise.race([once(child.stdout, 'data'), ended]);
  child.kill('SIGTERM');
  // Where the signal did not end it, the computation ends, and the listener gets it.
  const end = setTimeout(
    () => writeFileSync(join(dir, 'go'), ''),
    first.includes('push') && !first.includes('add') ? 30_000 : 0,
  );
  try {
    return await ended;
  } finally {
    clearTimeout(end);
  }
}

describe('a computation that does not let signals in', () => {
  it('is ended by one at once', async () => {
    expect(await signalled("LISTENED_SIGNALS.push('SIGTERM');")).toEqual([null, 'SIGTERM']);
  });

  it('comes to its end where something has to be removed first', async () => {
    expect(await signalled("LISTENED_SIGNALS.push('SIGTERM'); ON_SUDDEN_END.add(() => undefined);")).toEqual([9, null]);
  });

  it("leaves a host's signals alone", async () => {
    expect(await signalled('')).toEqual([9, null]);
  });
});
