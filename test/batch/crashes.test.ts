import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { failsAsNew, groupCrashes, isKnown, readKnownCrashes } from '../../src/batch/crashes.ts';
import { renderJunit } from '../../src/batch/report.ts';
import type { JobResult } from '../../src/batch/run.ts';
import type { JobRecord } from '../../src/batch/sidecar.ts';
import { renderIndex } from '../../src/cli/html/index-page.ts';

const dir = mkdtempSync(join(tmpdir(), 'elf2dmp-crashes-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const RVA = 'aaaaaaaaaaaa';
const SYMBOLS = 'bbbbbbbbbbbb';

interface Seen {
  rva?: string;
  symbols?: string;
  time?: string | null;
  crashed?: boolean;
  outcome?: 'good' | 'losses';
}

function recordOf({ rva = RVA, symbols, time = '2026-11-01T00:00:00.000Z', crashed = true, outcome = 'good' }: Seen) {
  const signature = (basis: string, hash: string) => ({ basis, hash, text: `0xd1_0 <${basis}>`, builds: [] });
  const windows = {
    systemTime: time,
    bugCheck: crashed ? { code: '0xd1', name: null } : null,
    culprit: { module: 'demo.sys', at: null, reason: '' },
    signatures: { rva: signature('rva', rva), symbols: symbols === undefined ? null : signature('symbols', symbols) },
  };
  return { outcome, exitCode: 0, seconds: 1, error: null, losses: [], bytes: 1, windows } as unknown as JobRecord;
}

const resultOf = (seen: Seen, name = 'a'): JobResult => ({
  job: { input: `/${name}`, output: `/out/${name}.dmp`, relative: name, options: {} },
  status: 'ran',
  record: recordOf(seen),
});

describe('a list of known crashes', () => {
  const file = join(dir, 'known.txt');
  const read = (text: string) => {
    writeFileSync(file, text);
    return [...readKnownCrashes(file)];
  };

  it('has a hash on each line, and comments', () => {
    expect(read('')).toEqual([]);
    expect(read(`# demo\r\n\n${RVA}\r\n  ${SYMBOLS} 0xd1 demo!X # bug 7\n`)).toEqual([RVA, SYMBOLS]);
  });

  it.each(['demo.sys', 'AAAAAAAAAAAA', 'aaaaaaaaaaa', 'aaaaaaaaaaaaa', 'aaaaaaaaaaaa,x'])(
    'is refused with another line, which is named: %s',
    (line) => {
      expect(() => read(`${RVA}\n${line}\n`)).toThrow(
        expect.objectContaining({ code: 'known-line', details: expect.objectContaining({ structure: 'line 2' }) }),
      );
    },
  );

  it('has to be there', () => {
    expect(() => readKnownCrashes(join(dir, 'none.txt'))).toThrow(/none\.txt/);
  });
});

describe('a crash', () => {
  it('is known by either signature, and without a list neither known nor new', () => {
    const record = recordOf({ symbols: SYMBOLS });
    expect([RVA, SYMBOLS, 'cccccccccccc'].map((hash) => isKnown(record, new Set([hash])))).toEqual([true, true, false]);
    expect(isKnown(record, undefined)).toBeNull();
    expect(isKnown(recordOf({ crashed: false }), new Set())).toBeNull();
    expect(isKnown(undefined, new Set())).toBeNull();
  });

  it('fails a batch only where that is asked for', () => {
    const fails = (seen: Seen, hashes: string[] | undefined, failOnNew = true) =>
      failsAsNew(recordOf(seen), { known: hashes && new Set(hashes), failOnNew });
    expect([fails({}, [RVA]), fails({}, []), fails({}, undefined), fails({}, [], false)]).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(fails({ crashed: false }, [])).toBe(false);
    // A record of a build that had no signatures.
    const old = { ...recordOf({}), windows: { bugCheck: { code: '0xd1' } } } as unknown as JobRecord;
    expect(failsAsNew(old, { known: new Set(), failOnNew: true })).toBe(false);
  });

  it('has its dumps, the first and the last time; those by symbols and by RVA are two', () => {
    const results = [
      resultOf({ time: '2026-11-03T00:00:00.000Z' }),
      resultOf({ time: null }),
      resultOf({ time: '2026-11-02T00:00:00.000Z' }),
      resultOf({ symbols: SYMBOLS, time: null }),
      resultOf({ crashed: false }),
    ];
    expect(
      groupCrashes(results, new Set([RVA])).map((g) => [
        g.signature.hash,
        g.results.length,
        g.firstSeen,
        g.lastSeen,
        g.known,
      ]),
    ).toEqual([
      [RVA, 3, '2026-11-02T00:00:00.000Z', '2026-11-03T00:00:00.000Z', true],
      [SYMBOLS, 1, null, null, true],
    ]);
    expect(groupCrashes(results, undefined).map(({ known }) => known)).toEqual([null, null]);
  });

  it('comes before those that are known, however many dumps show them', () => {
    const results = [resultOf({}), resultOf({}), resultOf({ rva: 'cccccccccccc' })];
    const order = (known: string[] | undefined) =>
      groupCrashes(results, known && new Set(known)).map(({ signature }) => signature.hash);
    expect(order([RVA])).toEqual(['cccccccccccc', RVA]);
    expect(order(['cccccccccccc'])).toEqual([RVA, 'cccccccccccc']);
    expect(order(undefined)).toEqual([RVA, 'cccccccccccc']);
  });
});

it('crashes are classes in JUnit, and new ones failures', () => {
  const results = [
    resultOf({}, 'known'),
    resultOf({ rva: 'cccccccccccc' }, 'new'),
    resultOf({ crashed: false }, 'runs'),
  ];
  const text = renderJunit(results, { known: new Set([RVA]), failOnNew: true });
  expect(text).toContain('tests="3" failures="1"');
  expect(text).toContain('classname="0xd1_0 &lt;rva&gt;" name="known"');
  expect(text).toContain(
    '<system-out>known crash: aaaaaaaaaaaa 0xd1_0 &lt;rva&gt;, likely culprit demo.sys</system-out>',
  );
  expect(text).toContain(
    '<failure type="new-crash" message="new crash: cccccccccccc 0xd1_0 &lt;rva&gt;, likely culprit demo.sys"/>',
  );
  expect(text).toContain('classname="elf2dmp" name="runs"');
  expect(renderJunit(results, { known: undefined, failOnNew: false })).toContain('failures="0"');
});

it('line breaks of names and of guests fake no line in JUnit', () => {
  const text = renderJunit([resultOf({ crashed: false }, 'vm\n::error::x'), resultOf({ rva: 'c\n::error::y' }, 'z')], {
    known: undefined,
    failOnNew: false,
  });
  expect(text).toContain('name="vm\\u{a}::error::x"');
  expect(text).toContain('crash: c\\u{a}::error::y ');
  expect(text.split('\n').filter((line) => line.startsWith('::'))).toEqual([]);
});

it('the index page has each crash with its dumps', () => {
  const results = [resultOf({}, 'one'), resultOf({}, 'two'), resultOf({ crashed: false }, 'three')];
  const page = renderIndex(
    { results, groups: groupCrashes(results, new Set()) },
    '/out',
    new Map([['/out/one.dmp', '/out/one.dmp.html']]),
  );
  const part = (id: string) => page.slice(page.indexOf(`<section id="${id}"`)).split('</section>')[0]!;
  expect(page).toContain('<h1>2 guests crashed, in 1 way</h1>');
  expect(part('signatures')).toMatch(
    /<article class="crash" id="crash-a{12}">\s*<h3>bug check 0xd1 in demo\.sys .*2 dumps.*new crash/,
  );
  expect(part('signatures')).toMatch(/<code>a{12}<\/code> <code>0xd1_0 &lt;rva&gt;<\/code>/);
  expect(part('signatures')).toMatch(/<td>two<\/td>.*<a href=".\/one\.dmp\.html">one<\/a>/s);
  for (const [id, order] of [
    ['time', ['three', 'two', 'one']],
    ['guests', ['one', 'three', 'two']],
  ] as const) {
    const names = [...part(id).matchAll(/<tr><td>(?:<a [^>]*>)?(\w+)/g)].map(([, name]) => name);
    expect(names).toEqual(order);
  }
  expect(part('time')).toContain('<a href="#crash-aaaaaaaaaaaa">bug check 0xd1</a>');
});
