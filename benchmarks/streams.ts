/** Migration streams: plain ones, and those of live guests, in which pages come many times. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { buildGuest } from '../test/guest/guest.ts';
import { writeStream } from '../test/guest/qevm.ts';
import { alternating, BIN, bigElf, elf2dmp, type Measured, MIB, type Row, runIn, spread } from './measure.ts';

const RUNS = Number(process.env['ELF2DMP_BENCH_RUNS'] ?? 9);

/** How often a live guest's pages come: what QEMU sent for a busy one. */
const ROUNDS = 25;

/**
 * A migration stream of a guest with `bytes` of further memory at 4 GiB, none of it zero, in three files: what comes
 * before that memory, the memory, and what comes after it.
 */
function bigStream(at: (name: string) => string, bytes: number): void {
  const guest = buildGuest();
  const stream = writeStream(guest);
  const block = stream.indexOf('pc.ram');
  stream.writeBigUInt64BE(stream.readBigUInt64BE(block - 9) + BigInt(bytes), block - 9);
  stream.writeBigUInt64BE(BigInt(guest.ramBytes + bytes), block + 6);
  stream.writeUIntLE(bytes / 0x10000, stream.indexOf('mc146818rtc') + 11 + 8 + 0x5b, 3);
  // The record of video memory follows that of the last page.
  const end = stream.lastIndexOf('vga.vram') - 9;
  writeFileSync(at('head'), stream.subarray(0, end));
  writeFileSync(at('tail'), stream.subarray(end));
  const fd = openSync(at('round'), 'w');
  const records = Buffer.alloc(256 * 4104);
  for (let i = 0; i < records.length; i += 4) records.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
  for (let offset = 0; offset < bytes; offset += MIB) {
    for (let page = 0; page < 256; page++) {
      records.writeBigUInt64BE(BigInt(guest.ramBytes + offset + 4096 * page) | 0x28n, 4104 * page);
    }
    writeSync(fd, records);
  }
  closeSync(fd);
}

/** Migration streams: plain ones against `cp` of the dump, live ones against reading them. */
export async function streams(dir: string): Promise<Row[]> {
  const at = (name: string) => join(dir, name);
  const [input, output, elf] = [at('vm.stream'), at('out'), at('vm.elf')];
  const [plain, live] = [
    Number(process.env['ELF2DMP_BENCH_PIPE_MIB'] ?? 1024),
    Number(process.env['ELF2DMP_BENCH_LIVE_MIB'] ?? 256),
  ];
  const shell = (script: string) => () => {
    rmSync(output, { force: true });
    spawnSync('sync');
    return runIn(dir, 'sh', '-c', script);
  };
  const command = `"${process.execPath}" "${BIN}" -q`;
  bigStream(at, plain * MIB);
  shell('cat head round tail > vm.stream')();
  bigElf(elf, plain * MIB, true);
  elf2dmp('-q', input, at('dump'));
  const whole = await alternating(RUNS, {
    cp: shell('cp dump out && sync out'),
    file: shell(`${command} vm.stream out`),
    pipe: shell(`cat vm.stream | ${command} - out`),
    elf: shell(`${command} vm.elf out`),
  });
  for (const path of [input, elf, at('dump')]) rmSync(path);
  bigStream(at, live * MIB);
  const rounds = `(cat head; for i in $(seq ${ROUNDS}); do cat round; done; cat tail)`;
  const running = await alternating(RUNS, {
    read: shell(`${rounds} | cat > /dev/null`),
    dump: shell(`${rounds} | ${command} - out`),
  });
  for (const name of ['head', 'round', 'tail', 'out']) rmSync(at(name), { force: true });
  const ratio = (times: Record<string, Measured[]>, of: string, to: string, what: 'seconds' | 'cpu' = 'seconds') =>
    spread(times[of]!.map((each, i) => each[what] / times[to]![i]![what]));
  const peak = (times: Record<string, Measured[]>, of: string) =>
    spread(
      times[of]!.map(({ peakMib }) => peakMib),
      0,
    );
  return [
    [`a plain migration stream of ${plain} MiB ÷ cp of its dump, and fsync`, ratio(whole, 'file', 'cp')],
    ['… from a pipe', ratio(whole, 'pipe', 'cp')],
    ['… ÷ converting an ELF file of that size', ratio(whole, 'file', 'elf')],
    ['… peak memory, MiB', peak(whole, 'file')],
    ['… that of converting the ELF file, MiB', peak(whole, 'elf')],
    [`a live stream, ${live} MiB ${ROUNDS} times, ÷ reading it alone`, ratio(running, 'dump', 'read')],
    ['… GiB a second', spread(running['dump']!.map(({ seconds }) => (live * ROUNDS) / 1024 / seconds))],
    ['… peak memory, MiB', peak(running, 'dump')],
  ];
}
