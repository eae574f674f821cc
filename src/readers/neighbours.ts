/** Files that people take for what we read: each gets its name and the command that makes what we need. */

import type { ErrorCodeOf } from '../core/codes.ts';
import { MIB } from '../core/units.ts';

interface Neighbour {
  code: ErrorCodeOf<'unsupported'>;
  what: string;
  hint: string;
}

interface Signature extends Neighbour {
  at?: number;
  magic: string;
  /** More that the first bytes have to show. */
  only?: (head: Buffer) => boolean;
}

const DUMP = '`virsh dump --memory-only DOMAIN FILE`';

/** Of .vmss and .vmsn files: each version has its own. */
const VMWARE_STATES = [
  '\xd0\xbe\xd2\xbe',
  '\xd2\xbe\xd2\xbe',
  '\xd3\xbe\xd2\xbe',
  '\xd3\xbe\xd3\xbe',
  '\xd1\xba\xd1\xba',
];

/** Groups of a .vmss file: how many, then name (64 bytes), offset and size of each, from byte 12 on. */
const VMWARE_GROUP = 80;
const MAX_VMWARE_GROUPS = 50;

/** Whether the group `memory` has more than the description of a .vmem file: at least a MiB. */
function hasVmwareMemory(head: Buffer): boolean {
  const count = head.length < 12 ? 0 : Math.min(head.readUInt32LE(8), MAX_VMWARE_GROUPS);
  for (let at = 12; at + VMWARE_GROUP <= Math.min(head.length, 12 + count * VMWARE_GROUP); at += VMWARE_GROUP) {
    const name = head.toString('latin1', at, at + 64).replace(/\0.*$/s, '');
    if (name === 'memory') return head.readBigUInt64LE(at + 72) >= BigInt(MIB);
  }
  return false;
}

const SIGNATURES: readonly Signature[] = [
  {
    magic: 'PAGEDU64',
    code: 'already-dmp',
    what: 'a Windows 64-bit crash dump already',
    hint: 'open it in WinDbg as it is',
  },
  {
    magic: 'elf2dmp?',
    code: 'in-place-begun',
    what: 'a dump whose conversion in place was ended half-way',
    hint: 'elf2dmp --undo FILE makes the ELF file again, --in-place FILE the dump',
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
  ...[
    // In a pipe or compressed: its snapshots are read from a file only.
    { magic: 'QFI\xfb', kind: 'qcow2' },
    { magic: 'KDMV', kind: 'VMDK' },
    { magic: 'COWD', kind: 'VMDK' },
    { magic: '# Disk DescriptorFile', kind: 'VMDK' },
    { magic: 'vhdxfile', kind: 'VHDX' },
    { magic: 'conectix', kind: 'VHD' },
    { magic: '\x7f\x10\xda\xbe', kind: 'VDI', at: 0x40 },
    { magic: 'EFI PART', kind: 'raw (GPT)', at: 0x200 },
    { magic: '\x55\xaa', kind: 'raw (MBR)', at: 0x1fe },
  ].map(
    ({ kind, ...rest }): Signature => ({
      ...rest,
      code: kind === 'qcow2' ? 'qcow2' : 'disk-image',
      what: `a ${kind} disk image, not memory`,
      hint: `dump the running guest's memory with ${DUMP}; a VM's memory is never in its disk`,
    }),
  ),
  ...VMWARE_STATES.map(
    (magic): Signature => ({
      magic,
      only: hasVmwareMemory,
      code: 'vmware-state-with-memory',
      what: "VMware's state of a VM (.vmss, .vmsn) with its memory inside",
      hint: 'make a crash dump of it with `vmss2core -W8 FILE`, which comes with VMware Workstation',
    }),
  ),
  ...VMWARE_STATES.map(
    (magic): Signature => ({
      magic,
      code: 'vmware-state',
      what: "VMware's state of a VM (.vmss, .vmsn), not its memory",
      hint: 'the memory is in the .vmem file beside it: give that one, as raw memory; or make a crash dump of both with `vmss2core -W8 FILE.vmss FILE.vmem`',
    }),
  ),
  {
    magic: '\x14\x20\x28\x01',
    code: 'hyper-v-state',
    what: 'a Hyper-V saved state (.vmrs) or configuration (.vmcx)',
    hint: "on the Hyper-V host, WinDbg's `.opendump` reads .vmrs files, and LiveKd (-hv NAME -o FILE.dmp) dumps a running VM",
  },
  {
    magic: 'EMiL',
    code: 'lime',
    what: 'a LiME dump of a Linux system, not of Windows',
    hint: 'open it with Volatility or drgn',
  },
  ...['hibr', 'HIBR', 'wake', 'WAKE', 'RSTR'].map(
    (magic): Signature => ({
      magic,
      code: 'hibernation-file',
      what: 'a Windows hibernation file (hiberfil.sys), not a memory dump',
      hint: 'MemProcFS and Volatility read these',
    }),
  ),
  ...['Xen saved domain', 'LinuxGuestRecord'].map(
    (magic): Signature => ({
      magic,
      code: 'xen-save',
      what: 'a saved Xen domain (`xl save`), not a memory dump',
      hint: 'restore it with `xl restore FILE`, then dump it with `xl dump-core DOMAIN FILE`',
    }),
  ),
  {
    magic: 'VMA\0',
    code: 'proxmox-backup',
    what: 'a Proxmox VE backup (.vma): disks and configuration of a VM, without its memory',
    hint: 'dump the running guest: `qm monitor ID`, then `dump-guest-memory FILE` there',
  },
  {
    magic: '\x7fVirtualBox SavedState',
    code: 'virtualbox-state',
    what: "VirtualBox's saved state of a VM (.sav)",
    hint: 'start the VM, which goes on where it was saved, and dump it with `VBoxManage debugvm VM dumpvmcore --filename FILE`',
  },
  ...['EVF\x09\r\n\xff\0', 'EVF2\r\n\x81\0'].map(
    (magic): Signature => ({
      magic,
      code: 'ewf',
      what: 'an EWF (EnCase) image, of memory or of a disk',
      hint: 'if it is of memory: `ewfexport -t memory -f raw FILE`, then `elf2dmp --format raw memory.raw OUTPUT`',
    }),
  ),
  {
    magic: 'AVML',
    code: 'avml',
    what: 'an AVML dump of a Linux system, not of Windows',
    hint: 'open it with Volatility; `avml-convert FILE OUT` makes a LiME file of it',
  },
  {
    magic: 'HPAK',
    code: 'hpak',
    what: "an HPAK archive of HBGary's FDPro",
    hint: "Volatility 2's `hpakextract -f FILE` takes the memory out of it: give that file with --format raw",
  },
  ...['\xcf\xfa\xed\xfe', '\xce\xfa\xed\xfe'].map(
    (magic): Signature => ({
      magic,
      code: 'mach-o',
      what: 'a Mach-O file (a core file of macOS), not a dump of a Windows guest',
      hint: "dump the guest with its hypervisor; in UTM and other QEMUs: `dump-guest-memory FILE` in QEMU's monitor",
    }),
  ),
  {
    magic: '\x1f\x8b',
    code: 'compressed-gzip',
    what: 'a gzip-compressed file',
    hint: 'it seems to be compressed twice: decompress it once by hand',
  },
  {
    magic: '\x28\xb5\x2f\xfd',
    code: 'compressed-zstd',
    what: 'a zstd-compressed file',
    hint: 'it seems to be compressed twice: decompress it once by hand',
  },
  {
    magic: '\xfd7zXZ\0',
    code: 'compressed-xz',
    what: 'an xz-compressed file',
    hint: 'it seems to be compressed twice: decompress it once by hand',
  },
  {
    magic: '\x04\x22\x4d\x18',
    code: 'compressed-lz4',
    what: 'an lz4-compressed file',
    hint: 'pipe it in: `lz4 -dc FILE | elf2dmp - OUTPUT`',
  },
  {
    magic: 'BZh',
    code: 'compressed-bzip2',
    what: 'a bzip2-compressed file',
    hint: 'it seems to be compressed twice: decompress it once by hand',
  },
  {
    magic: '7z\xbc\xaf\x27\x1c',
    code: 'compressed-7z',
    what: 'a 7-Zip archive',
    hint: 'pipe it in: `7z x -so FILE | elf2dmp - OUTPUT`',
  },
  {
    magic: 'PK\x03\x04',
    only: (head) => head.includes('aff4://') || head.includes('information.turtle'),
    code: 'aff4',
    what: 'an AFF4 volume, as winpmem writes it',
    hint: "extract its stream PhysicalMemory with an AFF4 tool (`winpmem -e '*/PhysicalMemory' -D DIR FILE`), then give that file with --format raw; or record again with winpmem's own raw format",
  },
  {
    magic: 'PK\x03\x04',
    code: 'compressed-zip',
    what: 'a zip archive',
    hint: 'pipe it in: `unzip -p FILE | elf2dmp - OUTPUT`',
  },
  {
    magic: '\x89LZO\0\r\n\x1a\n',
    code: 'compressed-lzop',
    what: 'an lzop-compressed file',
    hint: 'it seems to be compressed twice: decompress it once by hand',
  },
  {
    magic: 'ustar',
    at: 0x101,
    code: 'tar',
    what: 'a tar archive',
    hint: 'pipe the dump in: `tar -xOf FILE NAME | elf2dmp - OUTPUT`',
  },
];

/** What a file is instead of a dump, by its first bytes; undefined where they are not known. */
export function identifyNeighbour(head: Buffer): Neighbour | undefined {
  return SIGNATURES.find(
    ({ magic, at = 0, only }) => head.toString('latin1', at, at + magic.length) === magic && (only?.(head) ?? true),
  );
}
