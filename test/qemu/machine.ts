/**
 * The harness of test/support/qemu.ts for a machine that is not a guest of test/guest: memory by pages, and the
 * CPUs' states. What it needs of a guest besides these is worked out here.
 *
 * A CPU in the kernel has to have `hlt; jmp $-1` with RIP behind the HLT, one in user mode `jmp $`. So that RAM in
 * the dump is what was given, the tables' entries in use have their accessed and dirty bits set, and the descriptors
 * in use their accessed bits. A TSS may be busy in the GDT or not: the firmware loads TR from a copy in its ROM.
 */
import type { Guest, GuestCpu } from '../guest/guest.ts';
import { PageTables, PhysicalMemory } from '../guest/memory.ts';
import { dumpWithQemu as dumpGuest, type QemuOptions } from '../support/qemu.ts';

export { qemuAvailable } from '../support/qemu.ts';

/** A segment as QEMU keeps it. */
export interface Segment {
  selector: number;
  base: bigint;
  limit: number;
  flags: number;
}

/** CR0 is 0x80050033; a CPU that is not started (no SIPI) stays in firmware state. */
export type CpuSpec = Omit<GuestCpu, 'cr0' | 'trBase'>;

export interface Machine {
  ramBytes: number;
  /** Page-aligned physical address → 4096 bytes; none in 0xa0000…0xfffff. */
  pages: ReadonlyMap<number, Buffer>;
  /** By QEMU's cpu_index, which is the APIC id. At most 144. */
  cpus: readonly CpuSpec[];
  /**
   * Pages for code that the CPUs run last, 16 CPUs a page: in every CR3 at this address, executable in the
   * kernel. What goes there is put in `pages` too, where that has them.
   */
  launch: { virtual: bigint; physical: number[] };
}

export interface MachineDumpOptions {
  /** -p */
  paging?: boolean;
  kdump?: 'zlib';
  filter?: { begin: number; length: number };
  machineType?: 'pc' | 'q35';
}

const CR0 = 0x80050033n;
const CR4_LA57 = 1n << 12n;

/** Writes the machine's dump to `output`. Throws with the registers of the CPUs that did not get into their state. */
export async function dumpWithQemu(machine: Machine, output: string, options: MachineDumpOptions = {}): Promise<void> {
  const { kdump, ...rest } = options;
  const qemu: QemuOptions = kdump ? { ...rest, format: `kdump-${kdump}` } : rest;
  await dumpGuest(asGuest(machine), output, qemu);
}

/** Tables that are there already. */
class Memory extends PhysicalMemory {
  readonly #root: number;

  constructor(machine: Machine, root: number) {
    super(machine.ramBytes, 0);
    this.#root = root;
    for (const [at, page] of machine.pages) {
      if (at % 0x1000 !== 0 || page.length !== 0x1000) throw new Error(`0x${at.toString(16)} is not one whole page`);
      if (at >= machine.ramBytes) throw new Error(`0x${at.toString(16)} is not in the machine's RAM`);
      this.pages.set(at, page);
    }
  }

  override allocate(): number {
    return this.#root;
  }
}

function asGuest(machine: Machine): Guest {
  const started = machine.cpus.filter((cpu) => cpu.started);
  if (!machine.cpus[0]?.started) throw new Error('CPU 0 starts the others, so it has to be started');
  const spaces = started.map((cpu) => {
    const root = Number(cpu.cr3 & 0x000f_ffff_ffff_f000n);
    return new PageTables(new Memory(machine, root), (cpu.cr4 & CR4_LA57) === 0n ? 4 : 5);
  });
  for (const space of spaces) {
    machine.launch.physical.forEach((physical, i) => {
      const virtual = machine.launch.virtual + BigInt(i * 0x1000);
      if (space.translate(virtual) !== physical) {
        throw new Error(
          `the root at 0x${space.root.toString(16)} does not map 0x${virtual.toString(16)} as launch page`,
        );
      }
    });
  }
  // The firmware goes through the upper half of one of them.
  const kernel = spaces.find((space) => started.every((cpu) => space.translate(cpu.gdt.base) !== undefined));
  if (!kernel) throw new Error("no CPU's root maps the GDTs of all CPUs");
  const cpus: GuestCpu[] = machine.cpus.map((cpu) => ({ ...cpu, cr0: CR0, trBase: 0n }));
  const { ramBytes, launch } = machine;
  const used: Pick<Guest, 'ramBytes' | 'memory' | 'kernel' | 'cpus' | 'launch'> = {
    ...{ ramBytes, launch, cpus, kernel },
    memory: kernel.memory,
  };
  return used as Guest; // all that the harness looks at
}
