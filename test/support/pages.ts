/** Pages as people get them: a crashed guest of 64 processors and 250 modules, one that ran, and a batch's index. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { groupCrashes } from '../../src/batch/crashes.ts';
import type { JobResult } from '../../src/batch/run.ts';
import type { JobRecord } from '../../src/batch/sidecar.ts';
import { renderIndex } from '../../src/cli/html/index-page.ts';
import { renderPage } from '../../src/cli/html/page.ts';
import { convertAndDescribe } from '../../src/operations/convert.ts';
import type { PageData } from '../../src/report/page.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest, FAULT_AT, type GuestOptions } from '../guest/guest.ts';

const CRASH: NonNullable<GuestOptions['crash']> = {
  code: 0xd1,
  parameters: [0x10n, 2n, 0n, FAULT_AT.DemoDispatch],
  processor: 37,
  fault: 'DemoDispatch',
};

/** A page of each kind, by its name. */
export async function examplePages(): Promise<Record<'crash' | 'live' | 'index', string>> {
  return {
    crash: renderPage(withModules(await pageOf({ processors: 64, user: [3, 9, 40], crash: CRASH }), 250)),
    live: renderPage(await pageOf({ processors: 4, user: [3] })),
    index: exampleIndex(),
  };
}

async function pageOf(options: GuestOptions): Promise<PageData> {
  const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-pages-'));
  try {
    const [input, output] = [join(dir, 'vm.elf'), join(dir, 'vm.dmp')];
    writeFileSync(input, writeElf(buildGuest({ ramMiB: 32, ...options })));
    const { page } = await convertAndDescribe({ input, output }, { page: true });
    const { conversion } = page!;
    return {
      ...page!,
      input: { ...page!.input, path: '/dumps/win10.elf' },
      conversion: { ...conversion!, seconds: 0.1, dump: { ...conversion!.dump, path: '/dumps/win10.dmp' } },
    };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function withModules(page: PageData, count: number): PageData {
  const windows = page.windows!;
  const [first] = windows.modules;
  const more = Array.from({ length: count - windows.modules.length }, (_, i) => ({
    ...first!,
    name: `driver${i}.sys`,
  }));
  return { ...page, windows: { ...windows, modules: [...windows.modules, ...more] } };
}

const BUG_CHECKS = [
  ['0xd1', 'DRIVER_IRQL_NOT_LESS_OR_EQUAL', 'demo.sys', '0xd1_0 demo!DemoDispatch|demo!DemoRead'],
  ['0x9f', 'DRIVER_POWER_STATE_FAILURE', null, '0x9f_3 nt+0x5d8ff0'],
  ['0x133', 'DPC_WATCHDOG_VIOLATION', 'vioscsi.sys', '0x133_1 vioscsi!ProcessQueue'],
] as const;

function exampleIndex(): string {
  const results = Array.from({ length: 24 }, (_, i) => resultOf(i));
  const pages = results.map(({ job }) => [job.output, `${job.output}.html`] as const);
  return renderIndex({ results, groups: groupCrashes(results, new Set(['d10000000001'])) }, '/out', new Map(pages));
}

function resultOf(i: number): JobResult {
  const name = `host${i % 4}/vm-${String(i).padStart(3, '0')}`;
  const job = { input: `/in/${name}.elf`, output: `/out/${name}.dmp`, relative: `${name}.elf`, options: {} };
  if (i % 11 === 5) {
    const error = { code: 'elf-truncated', text: 'the file ends before the memory that its headers list' };
    const failed = { outcome: 'failed', windows: null, error, losses: [], lossCount: 0, bytes: null };
    return { job, status: 'ran', record: failed as unknown as JobRecord };
  }
  const check = i % 3 === 0 ? BUG_CHECKS[Math.floor(i / 3) % 4 < 2 ? 0 : (Math.floor(i / 3) % 4) - 1] : undefined;
  const windows = {
    name: i % 2 === 0 ? 'Windows 10 22H2' : 'Windows Server 2022',
    build: 19045,
    systemTime: `2026-11-${String(1 + (i % 28)).padStart(2, '0')}T0${i % 10}:12:09.341Z`,
    bugCheck: check ? { code: check[0], name: check[1], processor: i % 5 } : null,
    culprit: check?.[2] ? { module: check[2], at: null, reason: 'its code is the first on the stack' } : null,
    signatures: {
      symbols: check ? { hash: `${check[0].slice(2)}0000000001`.slice(0, 12), text: check[3], builds: [] } : null,
      rva: { hash: `0000000000${i}`.slice(-12), text: 'live', builds: [] },
    },
  };
  const losses = i % 7 === 3 ? ['no CPU state belongs to processor 2: its registers are unknown'] : [];
  const record = {
    outcome: losses.length > 0 ? 'losses' : 'good',
    windows,
    error: null,
    losses,
    lossCount: losses.length,
    bytes: 4 * 2 ** 30,
  };
  return { job, status: 'ran', record: record as unknown as JobRecord };
}
