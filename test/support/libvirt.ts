/**
 * Runs a made-up guest under a real libvirt (`qemu:///session`, without systemd), whose files are all in one folder:
 * nothing of a libvirt on this machine is seen or touched.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Guest } from '../guest/guest.ts';
import { newer, programsAvailable } from './programs.ts';
import {
  buildFirmware,
  createImage,
  GUEST_CPU,
  type Monitor,
  parked,
  placeLaunch,
  qemuAvailable,
  writeRam,
} from './qemu.ts';

const run = promisify(execFile);

/** For `describe.skipIf(!libvirtAvailable())`. */
export const libvirtAvailable = (): boolean =>
  qemuAvailable() &&
  programsAvailable({
    libvirtd: 'libvirt-daemon libvirt-daemon-driver-qemu',
    virsh: 'libvirt-clients',
    setpriv: 'util-linux',
    bzip2: 'bzip2',
    lzop: 'lzop',
    xz: 'xz-utils',
    zstd: 'zstd',
  });

/** Of libvirt: 9, 11. */
export function libvirtVersion(): number {
  const [program, ...args] = newer(['virsh', '--version']);
  return Number.parseInt(execFileSync(program!, args, { encoding: 'utf8' }), 10);
}

/** Debian's "nobody": for root, libvirt's daemon has no sessions. */
const NOBODY = 65534;
const DOMAIN = 'guest';
const START_MS = 300_000;

const hasEnded = ({ exitCode, signalCode }: ChildProcess): boolean => exitCode !== null || signalCode !== null;

export class Libvirt {
  /** libvirt and QEMU may write here. */
  readonly dir: string;
  readonly #environment: Record<string, string>;
  #daemon: ChildProcess | undefined;

  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), 'lv-'));
    chmodSync(this.dir, 0o755);
    const folder = (name: string) => {
      const path = join(this.dir, name);
      mkdirSync(path, { mode: 0o700, recursive: true });
      this.#give(path);
      return path;
    };
    this.#environment = {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C',
      // Else virsh starts a daemon of its own, which keeps the old settings.
      LIBVIRT_AUTOSTART: '0',
      HOME: folder('home'),
      XDG_RUNTIME_DIR: folder('run'),
      XDG_CONFIG_HOME: folder('config'),
      XDG_CACHE_HOME: folder('cache'),
      XDG_DATA_HOME: folder('data'),
    };
    folder('config/libvirt');
    this.#give(this.dir);
  }

  /** Starts the daemon, or starts it again with other settings; guests go on running meanwhile. */
  async start(settings: Record<string, string> = {}): Promise<void> {
    await this.#stopDaemon();
    const lines = Object.entries({ stdio_handler: 'file', ...settings }).map(([key, value]) => `${key} = "${value}"`);
    writeFileSync(join(this.dir, 'config/libvirt/qemu.conf'), `${lines.join('\n')}\n`);
    const log = openSync(join(this.dir, 'libvirtd.log'), 'a');
    const [program, ...args] = this.#command('libvirtd', []);
    this.#daemon = spawn(program!, args, { env: this.#environment, stdio: ['ignore', log, log] });
    for (const until = Date.now() + START_MS; ; await sleep(50)) {
      try {
        await this.virsh('version');
        return;
      } catch (error) {
        if (hasEnded(this.#daemon) || Date.now() > until) {
          throw new Error(`libvirtd did not start: ${readFileSync(join(this.dir, 'libvirtd.log'), 'utf8')}`, {
            cause: error,
          });
        }
      }
    }
  }

  /** What it printed. Throws with what it complained of. It waits for a busy daemon: no keepalive ends the connection. */
  async virsh(...args: string[]): Promise<string> {
    const [program, ...rest] = this.#command('virsh', ['-q', '-k', '0', '-c', 'qemu:///session', ...args]);
    const { stdout } = await run(program!, rest, { env: this.#environment, maxBuffer: 2 ** 26 });
    return stdout;
  }

  /** Starts the guest and pauses it when every CPU is where it should be. */
  async startGuest(guest: Guest): Promise<void> {
    placeLaunch(guest);
    const path = (name: string) => join(this.dir, name);
    writeFileSync(path('firmware'), buildFirmware(guest));
    writeRam(guest, path('ram'));
    createImage(path('disk.qcow2'));
    for (const name of ['firmware', 'ram', 'disk.qcow2']) this.#give(path(name));
    writeFileSync(path('domain.xml'), domain(guest, path));
    await this.virsh('define', path('domain.xml'));
    await this.virsh('start', DOMAIN);
    await parked(this.monitor, guest, 300_000);
    await this.virsh('suspend', DOMAIN);
  }

  get monitor(): Monitor {
    return {
      command: async (execute, args = {}) =>
        JSON.parse(await this.virsh('qemu-monitor-command', DOMAIN, JSON.stringify({ execute, arguments: args })))
          .return,
      human: (line) => this.virsh('qemu-monitor-command', DOMAIN, '--hmp', line),
    };
  }

  /** Ends guest and daemon, and removes all that they left. */
  async close(): Promise<void> {
    await this.virsh('destroy', DOMAIN).catch(() => undefined);
    await this.#stopDaemon();
    // QEMU and the daemon's helpers may be about to end.
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 10 });
  }

  async #stopDaemon(): Promise<void> {
    const daemon = this.#daemon;
    if (!daemon || hasEnded(daemon)) return;
    const ended = new Promise((resolve) => daemon.once('close', resolve));
    daemon.kill('SIGTERM');
    await ended;
  }

  #give(path: string): void {
    if (process.getuid?.() === 0) chownSync(path, NOBODY, NOBODY);
  }

  #command(program: string, args: readonly string[]): string[] {
    const user =
      process.getuid?.() === 0 ? ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : [];
    return newer([...user, program, ...args]);
  }
}

/** A loader device puts memory's contents into place, so that libvirt makes the RAM block as it likes. */
function domain(guest: Guest, path: (name: string) => string): string {
  const load = (from: number, to: number) => {
    const bytes = readFileSync(path('ram')).subarray(from, to);
    const name = `ram-${from.toString(16)}`;
    writeFileSync(path(name), bytes, { mode: 0o644 });
    return `<qemu:arg value='-device'/><qemu:arg value='loader,file=${path(name)},addr=${from},force-raw=on'/>`;
  };
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${DOMAIN}</name>
  <memory unit='b'>${guest.ramBytes}</memory>
  <vcpu>${guest.cpus.length}</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><loader type='rom'>${path('firmware')}</loader></os>
  <features><acpi/>${guest.vmcoreinfo ? "<vmcoreinfo state='on'/>" : ''}</features>
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='${path('disk.qcow2')}'/><target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-cpu'/><qemu:arg value='${GUEST_CPU}'/>
    ${load(0, 0xa0000)}
    ${load(0x100000, guest.ramBytes)}
  </qemu:commandline>
</domain>
`;
}
