/** Files that people take for what we read: each gets its name and the command that makes what we need. */

interface Neighbour {
  code: string;
  what: string;
  hint: string;
}

interface Signature extends Neighbour {
  at?: number;
  magic: string;
}

const DUMP = '`virsh dump --memory-only DOMAIN FILE`';

const SIGNATURES: readonly Signature[] = [
  {
    magic: 'QEVM',
    code: 'migration-stream',
    what: 'a QEMU migration stream, as `virsh dump` writes without --memory-only, not a memory dump',
    hint: `dump again with ${DUMP}; to use this file, restore the guest from it first (\`virsh restore\`, or qemu -incoming) and then dump it`,
  },
  ...['LibvirtQemudSave', 'LibvirtQemudPart'].map((magic) => ({
    magic,
    code: 'libvirt-save',
    what: 'a libvirt save file (a migration stream), not a memory dump',
    hint: `restore the guest with \`virsh restore FILE\`, then dump it with ${DUMP}`,
  })),
  {
    magic: 'PAGEDU64',
    code: 'already-dmp',
    what: 'a Windows 64-bit crash dump already',
    hint: 'open it in WinDbg as it is',
  },
  {
    magic: 'PAGEDUMP',
    code: 'already-dmp-32',
    what: 'a Windows 32-bit crash dump already',
    hint: 'open it in WinDbg as it is',
  },
  {
    magic: 'MDMP',
    code: 'minidump',
    what: 'a Windows user-mode minidump of one process, not of a machine',
    hint: 'open it in WinDbg as it is',
  },
  {
    magic: 'QFI\xfb',
    code: 'qcow2',
    what: 'a qcow2 disk image, not memory',
    hint: `dump the running guest's memory with ${DUMP}`,
  },
  {
    magic: '\x1f\x8b',
    code: 'compressed-gzip',
    what: 'a gzip-compressed file',
    hint: 'decompress it first: `gunzip -k FILE`',
  },
  {
    magic: '\x28\xb5\x2f\xfd',
    code: 'compressed-zstd',
    what: 'a zstd-compressed file',
    hint: 'decompress it first: `zstd -d FILE`',
  },
  {
    magic: '\xfd7zXZ\0',
    code: 'compressed-xz',
    what: 'an xz-compressed file',
    hint: 'decompress it first: `xz -dk FILE`',
  },
  {
    magic: '\x04\x22\x4d\x18',
    code: 'compressed-lz4',
    what: 'an lz4-compressed file',
    hint: 'decompress it first: `lz4 -d FILE`',
  },
  {
    magic: 'BZh',
    code: 'compressed-bzip2',
    what: 'a bzip2-compressed file',
    hint: 'decompress it first: `bunzip2 -k FILE`',
  },
  {
    magic: '7z\xbc\xaf\x27\x1c',
    code: 'compressed-7z',
    what: 'a 7-Zip archive',
    hint: 'extract it first: `7z x FILE`',
  },
  { magic: 'PK\x03\x04', code: 'compressed-zip', what: 'a zip archive', hint: 'extract it first: `unzip FILE`' },
];

export function identifyNeighbour(head: Buffer): Neighbour | undefined {
  return SIGNATURES.find(({ magic, at = 0 }) => head.toString('latin1', at, at + magic.length) === magic);
}
