/** Recognises dumps of guests' memory by their first bytes: files that no output may replace. */
import { ELF_MAGIC, ET_CORE } from '../formats/elf.ts';
import { FLATTENED_SIGNATURE, KDUMP_SIGNATURE } from '../formats/kdump.ts';
import { LIBVIRT_PART_MAGIC, LIBVIRT_SAVE_MAGIC, QEVM_MAGIC } from '../formats/qevm.ts';
import { identifyContainer } from '../source/containers.ts';

/** Elf64_Ehdr.e_type; it has the same place in 32-bit files. */
const E_TYPE = 16;

/** What a memory dump is, for messages; undefined for other files. Looks into compressed ones. */
export async function memoryDumpKind(head: Buffer): Promise<string | undefined> {
  const container = identifyContainer(head);
  if (!container) return plainKind(head);
  try {
    for await (const part of container.unpack(once(head))) {
      const kind = plainKind(part);
      return kind && `${kind} (${container.name})`;
    }
  } catch {
    // What can't be decompressed is not a dump.
  }
  return undefined;
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

function plainKind(head: Buffer): string | undefined {
  const begins = (magic: Buffer | string) => head.subarray(0, magic.length).equals(Buffer.from(magic));
  if (begins(ELF_MAGIC) && head.length >= E_TYPE + 2 && isCore(head)) return 'an ELF core file';
  if (begins(KDUMP_SIGNATURE) || begins(FLATTENED_SIGNATURE)) return 'a kdump-compressed file';
  if (begins(QEVM_MAGIC)) return 'a QEMU migration stream';
  if (begins(LIBVIRT_SAVE_MAGIC) || begins(LIBVIRT_PART_MAGIC)) return 'a libvirt save file';
  return undefined;
}

/** In either byte order. */
const isCore = (head: Buffer): boolean =>
  head.readUInt16LE(E_TYPE) === ET_CORE || head.readUInt16BE(E_TYPE) === ET_CORE;
