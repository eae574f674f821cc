import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { MemoryImage } from '../../../src/memory/image.ts';
import { convert } from '../../../src/operations/convert.ts';
import { openInput } from '../../../src/readers/input.ts';
import { buildGuest } from '../../guest/guest.ts';
import { Libvirt, libvirtAvailable, libvirtVersion } from '../../support/libvirt.ts';
import { definite, samePages } from '../../support/same-memory.ts';

/** The word in libvirt's header that says how the stream is compressed. */
const FORMATS = ['raw', 'gzip', 'bzip2', 'xz', 'lzop', 'zstd', 'sparse'] as const;

/** libvirt's version that has them; zstd and sparse are of libvirt 11. */
const SINCE: Partial<Record<(typeof FORMATS)[number], number>> = { zstd: 11, sparse: 11 };

describe.skipIf(!libvirtAvailable())("a real libvirt's files", () => {
  const guest = buildGuest({ processors: 2, user: [1], vmcoreinfo: 'good' });
  let libvirt: Libvirt;
  let elf: MemoryImage;
  const path = (name: string) => join(libvirt.dir, name);
  beforeAll(async () => {
    libvirt = new Libvirt();
    await libvirt.start();
    await libvirt.startGuest(guest);
    await libvirt.virsh('dump', 'guest', path('guest.elf'), '--memory-only');
    elf = await openInput(path('guest.elf'));
  });
  afterAll(async () => {
    elf?.close();
    await libvirt?.close();
  });

  /** The file gives the ELF's memory and registers, and a dump of it. */
  async function expectGuest(input: string, options: { snapshot?: string } = {}): Promise<MemoryImage> {
    const image = await openInput(input, options);
    expect(samePages(image, elf)).toBeGreaterThan(3900);
    expect(image.cpus.length).toBe(guest.cpus.length);
    image.cpus.forEach(({ registers }, i) => {
      expect(registers).toMatchObject(definite(elf.cpus[i]!.registers!));
    });
    image.close();
    const output = path('out.dmp');
    const report = await convert({ input, output, force: true, ...options });
    expect(report.windows.kernel.base).toBe(`0x${guest.truth.kernelBase.toString(16)}`);
    rmSync(output);
    return image;
  }

  /** A guest that migrated to a file has to run before it can do so again. Its CPUs sleep, or loop in user mode. */
  async function again(): Promise<void> {
    await libvirt.virsh('resume', 'guest');
    await libvirt.virsh('suspend', 'guest');
  }

  it.each(['elf', 'kdump-zlib'])('virsh dump --memory-only --format %s', async (format) => {
    const file = path(`memory-only.${format}`);
    await libvirt.virsh('dump', 'guest', file, '--memory-only', '--format', format);
    // QEMU writes to a pipe of libvirt's.
    expect((await expectGuest(file)).format).toBe(format === 'elf' ? 'elf-core' : 'kdump-flattened');
  });

  it.each(FORMATS.filter((format) => libvirtVersion() >= (SINCE[format] ?? 0)))(
    'virsh save and virsh dump, %s',
    async (format) => {
      await libvirt.start({ save_image_format: format, dump_image_format: format === 'sparse' ? 'raw' : format });
      await again();
      const dump = path(`dump.${format}`);
      await libvirt.virsh('dump', 'guest', dump);
      const head = readFileSync(dump).subarray(0, 4);
      // A bare stream, compressed as a whole.
      expect(head.toString('latin1') === 'QEVM').toBe(format === 'raw' || format === 'sparse');
      expect((await expectGuest(dump)).format).toBe('qevm');
      await again();
      const save = path(`save.${format}`);
      await libvirt.virsh('save', 'guest', save);
      expect(FORMATS[readFileSync(save).readUInt32LE(28)]).toBe(format);
      expect((await expectGuest(save)).format).toBe(format === 'raw' || format === 'sparse' ? 'libvirt-save' : 'qevm');
      await libvirt.virsh('restore', save, '--paused');
    },
  );

  const saves = [['--bypass-cache']];
  if (libvirtVersion() >= SINCE.sparse!) {
    const sparse = ['--image-format', 'sparse'];
    saves.push([...sparse, '--parallel-channels', '4'], [...sparse, '--bypass-cache']);
  }
  it.each(saves.map((options) => [options] as const))('virsh save %j', async (options) => {
    await libvirt.start();
    await again();
    const save = path(`save${options.join('')}`);
    await libvirt.virsh('save', 'guest', save, ...options);
    await expectGuest(save);
    await libvirt.virsh('restore', save, '--paused');
  });

  it('virsh dump --live of a running guest', async () => {
    await libvirt.virsh('resume', 'guest');
    await libvirt.virsh('dump', 'guest', path('live.dump'), '--live');
    await libvirt.virsh('suspend', 'guest');
    await expectGuest(path('live.dump'));
  });

  it('virsh managedsave', async () => {
    await libvirt.start();
    await again();
    await libvirt.virsh('managedsave', 'guest');
    await expectGuest(path('config/libvirt/qemu/save/guest.save'));
    await libvirt.virsh('start', 'guest', '--paused');
  });

  it('virsh snapshot-create-as, its memory in a file', async () => {
    await again();
    const memory = path('snapshot.memory');
    await libvirt.virsh(
      'snapshot-create-as',
      'guest',
      'outside',
      '--memspec',
      `file=${memory}`,
      '--diskspec',
      'vda,snapshot=no',
    );
    await expectGuest(memory);
  });

  it('virsh snapshot-create-as, inside the disk', async () => {
    await again();
    await libvirt.virsh('snapshot-create-as', 'guest', 'inside');
    await libvirt.virsh('destroy', 'guest');
    await expectGuest(path('disk.qcow2'), { snapshot: 'inside' });
  });
});
