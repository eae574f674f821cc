import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { renderPage } from '../../src/cli/html/page.ts';
import { type ConvertOptions, convertAndDescribe } from '../../src/operations/convert.ts';
import { inspectAndDescribe } from '../../src/operations/inspect.ts';
import type { PageData } from '../../src/report/page.ts';
import { writeElf } from '../guest/elf.ts';
import { buildGuest } from '../guest/guest.ts';
import { writeWinDump } from '../guest/win-dump.ts';

const BIN = fileURLToPath(new URL('../../bin/elf2dmp.js', import.meta.url));
const GUEST = {
  processors: 3,
  user: [2],
  crash: { code: 0xd1, parameters: [0x10n, 2n, 0n, 0xfffff8042c460004n] as const, processor: 1 },
};
let dir: string;
let page: PageData;
const at = (name: string) => join(dir, name);

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'elf2dmp-html-'));
  writeFileSync(at('vm.elf'), writeElf(buildGuest(GUEST)));
  page = await pageOfConversion({ input: at('vm.elf'), output: at('out.dmp') });
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const pageOfConversion = async (options: ConvertOptions): Promise<PageData> =>
  (await convertAndDescribe(options, { page: true })).page!;

/** Every tag with its attributes' names, in order: what a page is, apart from its text. */
const structure = (markup: string) => markup.match(/<\/?[a-z!][^\s>]*/gi);

describe('the report for people', () => {
  it('says first what happened, and shows what is known', () => {
    const text = renderPage(page);
    expect(text).toMatch(/<h1>The guest crashed: DRIVER_IRQL_NOT_LESS_OR_EQUAL \(0xd1\) on processor 1<\/h1>/);
    expect(text).toContain('Complete: nothing was lost.');
    for (const known of [
      'demo.sys',
      'ntkrnlmp.pdb/',
      'IRQL at that time: DISPATCH_LEVEL',
      'address of the instruction: demo.sys!DemoDispatch+0x4 (.text)',
      'Likely culprit: <strong>demo.sys</strong>',
      '<code>0xd1_0 ',
      'ntoskrnl.exe!KeBugCheckEx+',
      'CONTEXT of processor 2',
    ]) {
      expect(text).toContain(known);
    }
    for (const kind of ['patched', 'kernel', 'tables', 'data', 'zero'])
      expect(text).toContain(`<i class="${kind}"></i>`);
  });

  it('lists what was repaired in a crash dump, with before, after and evidence', async () => {
    const dump = writeWinDump(buildGuest({ ...GUEST, kdbg: 'plain' }));
    dump.writeUInt32LE(0x161, 0x38);
    dump.writeBigUInt64LE(7n, 0x90);
    writeFileSync(at('wrong.dmp'), dump);
    const text = renderPage(await pageOfConversion({ input: at('wrong.dmp'), output: at('right.dmp') }));
    expect(text).toMatch(/<h2>Repaired <span class="count">2<\/span><\/h2>/);
    for (const cells of [
      ['header BugCheckCode', '<code>0x161</code>', '<code>0xd1</code>', 'KiBugCheckData'],
      ['header NumberOfPages', '<code>7</code>', '<code>3999</code>', 'the runs and the size of the file'],
    ]) {
      expect(text.replaceAll('<td class="text">', '<td>')).toContain(cells.map((cell) => `<td>${cell}</td>`).join(''));
    }
    expect(renderPage(page)).not.toContain('Repaired');
  });

  it('says of a smaller dump what it holds, and draws what was left out', async () => {
    const text = renderPage(await pageOfConversion({ input: at('vm.elf'), output: at('kernel.dmp'), type: 'kernel' }));
    expect(text).toMatch(
      /it holds only the kernel&#39;s memory: \d+ pages, and \d{4} pages of the input were left out/,
    );
    expect(text).toContain('<i class="left"></i>');
    expect(renderPage(page)).not.toContain('class="left"');
  });

  it('has the processor that crashed first, marked and open, and the others in a line each', () => {
    const text = renderPage(page);
    const section = text.slice(text.indexOf('<section id="processors"'), text.indexOf('<section id="guest"'));
    expect(section).toMatch(
      /^<section[^>]*>\s*<h2>Processors <span class="count">3<\/span><\/h2>\s*<article class="crashing">\s*<h3>Processor 1 /,
    );
    expect(section.match(/<details class="cpu">/g)).toHaveLength(2);
    expect(section).toContain('<details class="registers"><summary>Registers</summary>');
    expect(section).toMatch(/<code>rax=[0-9a-f]{16}<\/code>/);
  });

  it('has one line for all processors that run the same code, and marks those on their idle threads', async () => {
    writeFileSync(at('many.elf'), writeElf(buildGuest({ ...GUEST, processors: 8, user: [2] })));
    const many = await pageOfConversion({ input: at('many.elf'), output: at('many.dmp') });
    const lines = [...renderPage(many).matchAll(/<details class="cpu">\s*<summary>(.*?)<\/summary>/gs)].map(
      ([, line]) => line!.replace(/<[^>]+>/g, ''),
    );
    expect(lines).toEqual(['Processor 2 user 0x00007ff612340001', '6 processors idle thread ntoskrnl.exe!PoIdle+0x5']);
    const busy = {
      ...many,
      processors: many.processors.map((one) => ({ ...one, idle: one.number === 4 ? false : one.idle })),
    };
    expect(renderPage(busy)).toMatch(/<strong>Processor 4<\/strong> <span class="badge plain">kernel</);
    const unknown = { ...many, processors: [] };
    expect(renderPage(unknown)).not.toContain('idle thread');
  });

  it('says how to go on, with numbers only in what is to be pasted', () => {
    const text = renderPage(page);
    const commands = [...text.matchAll(/<dt><code>(.*?)<\/code><\/dt>/g)].map(([, command]) => command);
    expect(commands).toEqual([
      'windbg -z out.dmp',
      '.sympath srv*C:\\Symbols*https://msdl.microsoft.com/download/symbols',
      '.reload; !analyze -v',
      'ub 0xfffff8042c460004 L8; u 0xfffff8042c460004 L2',
      '!pte 0x10',
      'lmv a 0xfffff8042c450000',
    ]);
  });

  it('leads to each section from its contents', () => {
    const text = renderPage(page);
    const [, nav] = /<nav [^>]*>(.*?)<\/nav>/s.exec(text)!;
    const links = [...nav!.matchAll(/href="#([a-z-]+)"/g)].map(([, id]) => id);
    expect(links).toEqual([...text.matchAll(/<section id="([a-z-]+)"/g)].map(([, id]) => id));
    expect(links.length).toBeGreaterThan(7);
  });

  it('counts what its map shows', () => {
    const text = renderPage(page);
    for (const kind of ['patched', 'kernel', 'tables', 'data', 'zero'] as const) {
      const drawn = page.memory!.ranges.flatMap(({ cells }) => cells).filter((cell) => cell === kind).length;
      expect(text).toMatch(new RegExp(`<i class="${kind}"></i> [^<]+ <span class="count">${drawn}</span>`));
    }
    expect(text.match(/class="hole"/g)).toHaveLength(page.memory!.ranges.length - 1);
  });

  it('needs nothing else, and runs nothing', () => {
    const text = renderPage(page);
    expect(text).not.toMatch(
      /<script|<link|<img|<iframe|<object|<form|\son[a-z]+=|\ssrc=|\sstyle=|\shref="(?!#[a-z-]+")|url\(/i,
    );
    expect(text).toContain("default-src 'none'");
    expect(text).not.toContain('unsafe-inline');
  });

  it.each([
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    '</code></td></table><h1>',
    '</title><body onload=x>',
    '<!-- ',
    '--></style>',
    '&lt;script&gt;&#60;b>',
    '\u202egnp.exe\u0007\u001b[31m\u0000\ud800',
  ])('takes whatever a guest holds for text: %j', (hostile) => {
    const poisoned = JSON.parse(
      JSON.stringify(page, (key, value) =>
        // What the tool itself made: numbers as text, and words that choose a style or a sentence.
        typeof value === 'string' && !/^0x[0-9a-f]+$/.test(value) && !ours(key, value) ? hostile : value,
      ),
    ) as PageData;
    poisoned.memory = page.memory;
    const text = renderPage(poisoned);
    expect(structure(text)).toEqual(structure(renderPage(page)));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there.
    expect(text).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]/);
  });

  it('is written beside the dump, for its owner only, and never over anything', () => {
    const run = (...args: string[]) => spawnSync(process.execPath, [BIN, '-q', ...args], { encoding: 'utf8' });
    expect(run('--report', at('r.html'), at('vm.elf'), at('r.dmp')).status).toBe(0);
    expect(readFileSync(at('r.html'), 'utf8')).toContain('The guest crashed');
    expect(statSync(at('r.html')).mode & 0o777).toBe(0o600);
    expect(run('--report', at('r.html'), at('vm.elf'), at('s.dmp'))).toMatchObject({ status: 6 });
    expect(run('--force', '--report', at('vm.elf'), at('vm.elf'), at('s.dmp'))).toMatchObject({ status: 2 });
    expect(run('--report', at('t.dmp'), at('vm.elf'), at('t.dmp'))).toMatchObject({ status: 2 });
    // The same directory by another name, and the other file that is written.
    symlinkSync(dir, at('alias'));
    expect(run('-f', '--report', at('alias/t.dmp'), at('vm.elf'), at('t.dmp'))).toMatchObject({ status: 2 });
    expect(run('-f', '--report', at('x'), '--patches', at('alias/x'), at('vm.elf'), at('t.dmp'))).toMatchObject({
      status: 2,
    });
  });

  it('is there for what can only be looked at, also where no Windows is found', async () => {
    const pageOf = async (input: string) => (await inspectAndDescribe({ input }, { page: true })).page!;
    expect(renderPage(await pageOf(at('out.dmp')))).toContain('Complete: nothing was lost.');
    writeFileSync(at('empty.elf'), writeElf(buildGuest(), { withoutNotes: true, runs: [[0xf00000, 0x1000000]] }));
    expect(renderPage(await pageOf(at('empty.elf')))).toContain('<h1>No Windows: ');
  });
});

/** Choices of ours, which are not the guest's to make. */
function ours(key: string, value: string): boolean {
  return (
    [
      'severity',
      'processorFrom',
      'pagingMode',
      'in',
      'how',
      'mode',
      'code',
      'kind',
      'schema',
      'shown',
      'type',
      'registers',
      'originalSha256',
    ].includes(key) || value === ''
  );
}
