/** Names of modules and processes as running systems have them. */
import type { Gone } from './true-guest.ts';

/** With the kernel and the session's modules, 155 [R]. */
const KNOWN_MODULES = [
  ...['hal.dll', 'kd.dll', 'mcupdate_GenuineIntel.dll', 'CLFS.SYS', 'tm.sys', 'PSHED.dll', 'BOOTVID.dll'],
  ...['FLTMGR.SYS', 'msrpc.sys', 'ksecdd.sys', 'clipsp.sys', 'cmimcext.sys', 'ntosext.sys', 'CI.dll', 'cng.sys'],
  ...['Wdf01000.sys', 'WDFLDR.SYS', 'WppRecorder.sys', 'SleepStudyHelper.sys', 'acpiex.sys', 'mssecflt.sys'],
  ...['SgrmAgent.sys', 'ACPI.sys', 'WMILIB.SYS', 'intelpep.sys', 'WindowsTrustedRT.sys', 'pcw.sys', 'msisadrv.sys'],
  ...['pci.sys', 'vdrvroot.sys', 'pdc.sys', 'CEA.sys', 'partmgr.sys', 'spaceport.sys', 'volmgr.sys', 'volmgrx.sys'],
  ...['mountmgr.sys', 'storahci.sys', 'storport.sys', 'EhStorClass.sys', 'fileinfo.sys', 'Wof.sys', 'WdFilter.sys'],
  ...['Ntfs.sys', 'Fs_Rec.sys', 'ndis.sys', 'NETIO.SYS', 'ksecpkg.sys', 'tcpip.sys', 'fwpkclnt.sys', 'wfplwfs.sys'],
  ...['fvevol.sys', 'volume.sys', 'volsnap.sys', 'rdyboost.sys', 'mup.sys', 'iorate.sys', 'disk.sys', 'CLASSPNP.SYS'],
  ...['crashdmp.sys', 'cdrom.sys', 'filecrypt.sys', 'tbs.sys', 'Null.SYS', 'Beep.SYS', 'dxgkrnl.sys', 'watchdog.sys'],
  ...['BasicDisplay.sys', 'BasicRender.sys', 'Npfs.SYS', 'Msfs.SYS', 'CimFS.SYS', 'tdx.sys', 'TDI.SYS', 'netbt.sys'],
  ...['afunix.sys', 'afd.sys', 'vwififlt.sys', 'pacer.sys', 'ndiscap.sys', 'netbios.sys', 'rdbss.sys', 'nsiproxy.sys'],
  ...['npsvctrig.sys', 'mssmbios.sys', 'gpuenergydrv.sys', 'dfsc.sys', 'fastfat.SYS', 'bam.sys', 'ahcache.sys'],
  ...['CompositeBus.sys', 'kdnic.sys', 'umbus.sys', 'netkvm.sys', 'viostor.sys', 'vioser.sys', 'balloon.sys'],
  ...['intelppm.sys', 'NdisVirtualBus.sys', 'swenum.sys', 'ks.sys', 'rdpbus.sys', 'HTTP.sys', 'bowser.sys'],
  ...['mpsdrv.sys', 'mrxsmb.sys', 'mrxsmb20.sys', 'srvnet.sys', 'srv2.sys', 'Ndu.sys', 'peauth.sys', 'tcpipreg.sys'],
  ...['condrv.sys', 'mmcss.sys', 'luafv.sys', 'wcifs.sys', 'cldflt.sys', 'storqosflt.sys', 'bindflt.sys', 'lltdio.sys'],
  ...['rspndr.sys', 'msquic.sys', 'wanarp.sys', 'dump_dumpfve.sys', 'dump_storport.sys', 'WpdUpFltr.sys'],
];

export const SESSION_MODULES = ['win32k.sys', 'win32kbase.sys', 'win32kfull.sys', 'cdd.dll'];

export const MODULE_NAMES: readonly string[] = [
  ...KNOWN_MODULES,
  ...Array.from({ length: 150 - KNOWN_MODULES.length }, (_, i) => `oem${i}.sys`),
];

interface Name {
  name: string;
  pid: number;
  parent: number;
  /** No user half and no PEB. */
  minimal?: boolean;
  session?: boolean;
  /** The first build that has it. */
  since?: number;
  gone?: Gone;
}

const session = true;
const minimal = true;

const SERVICES: readonly Name[] = Array.from({ length: 24 }, (_, i) => ({
  name: 'svchost.exe',
  pid: 0x400 + 0x54 * i,
  parent: 0x2b0,
  session,
}));

export const PROCESS_NAMES: readonly Name[] = [
  { name: 'System', pid: 4, parent: 0, minimal },
  { name: 'Secure System', pid: 0x38, parent: 4, minimal, since: 10240, gone: 'secure system' },
  { name: 'Registry', pid: 0x6c, parent: 4, minimal, since: 17134 },
  { name: 'smss.exe', pid: 0x198, parent: 4 },
  { name: 'csrss.exe', pid: 0x210, parent: 0x204, session },
  { name: 'wininit.exe', pid: 0x260, parent: 0x204, session },
  { name: 'services.exe', pid: 0x2b0, parent: 0x260, session },
  { name: 'lsass.exe', pid: 0x2c4, parent: 0x260, session },
  ...SERVICES,
  { name: 'MemCompression', pid: 0x7e4, parent: 4, minimal, since: 14393 },
  { name: 'csrss.exe', pid: 0xc04, parent: 0xbfc, session },
  { name: 'winlogon.exe', pid: 0xc30, parent: 0xbfc, session },
  // 15 characters: in a field of 16 bytes with a NUL; where it has 15, Windows keeps 14.
  { name: 'SearchIndexer.e', pid: 0xd08, parent: 0x2b0, session },
  { name: 'SearchProtocol', pid: 0xd40, parent: 0xd08, session },
  { name: 'explorer.exe', pid: 0x1104, parent: 0x10f8, session },
  // A suspended store app, and an exited process that someone still has a handle of.
  { name: 'Calculator.exe', pid: 0x1500, parent: 0x2b0, session, gone: 'outswapped' },
  { name: 'setup.exe', pid: 0x1610, parent: 0x1104, session, gone: 'exited' },
  { name: 'notepad.exe', pid: 0x1a2c, parent: 0x1104, session },
];
