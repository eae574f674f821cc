// Prints the matrix of guests and checks as a table, and writes it to docs/matrix.md with --write:
// `npm run matrix`. Needs QEMU and the debugger, as CONTRIBUTING.md says.
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ARM64_CASES, runArm64Case } from '../test/matrix/arm64.ts';
import { CASES } from '../test/matrix/cases.ts';
import { runCase } from '../test/matrix/run.ts';
import { runX86Case, X86_CASES } from '../test/matrix/x86.ts';

async function main(): Promise<void> {
  const rows = ['| guest | written by | checks | read to locate | locating |', '| --- | --- | --- | --- | --- |'];
  let failed = 0;
  const all = [
    ...CASES.map((c) => ({ ...c, run: () => runCase(c) })),
    ...ARM64_CASES.map((c) => ({ name: c.name, format: c.format, elf: undefined, run: () => runArm64Case(c) })),
    ...X86_CASES.map((c) => ({ name: c.name, format: undefined, elf: undefined, run: () => runX86Case(c) })),
  ];
  for (const c of all) {
    const r = await c.run().catch((error: unknown) => ({
      problems: [String(error)],
      checks: 0,
      bytesRead: 0,
      inputBytes: 1,
      locateMilliseconds: 0,
    }));
    const outcome = r.problems.length === 0 ? `${r.checks} right` : `**${r.problems.length} of ${r.checks} wrong**`;
    const effort =
      r.inputBytes > 0
        ? `${(r.bytesRead / 1024).toFixed(0)} KiB (${((100 * r.bytesRead) / r.inputBytes).toFixed(1)}%) | ${r.locateMilliseconds} ms`
        : '| ';
    rows.push(
      `| ${c.name} | ${c.elf || /raw|lzo|snappy|without/.test(c.format ?? '') ? 'test/guest' : 'QEMU'} | ${outcome} | ${effort} |`,
    );
    console.log(rows.at(-1));
    for (const problem of r.problems) console.log(`    ${problem}`);
    if (r.problems.length > 0) failed++;
  }
  if (process.argv.includes('--write'))
    writeFileSync(fileURLToPath(new URL('../docs/matrix.md', import.meta.url)), page(rows));
  process.exitCode = failed > 0 ? 1 : 0;
}

const page = (rows: readonly string[]) => `# Guests and what the debugger shows of them

Made by \`npm run matrix -- --write\`. Each guest is built by \`test/guest\`, run and dumped by a real QEMU (or, where
QEMU can't make the case, written by our own ELF writer), converted, and opened in WinDbg's engine. Checked for each:
every processor's registers, the instruction at RIP, its stack frame by frame, modules, build, times, bug check, the
header's fields, memory at chosen addresses, the processor that the debugger opens on, and that the debugger complains
of nothing. "Read to locate" is what finding Windows takes of the file, in a guest of 16 MiB: it does not grow with
the guest, except where memory has to be searched.

${rows.join('\n')}
`;

void main();
