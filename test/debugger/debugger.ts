// Opens dumps in the engine of the real WinDbg, running under Wine, and reads what it says; docs/debugger.md tells
// how it is set up. A session costs about a second, so ask everything of one dump in one `askDebugger` call.
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const cache = process.env['ELF2DMP_DEBUGGER_DIR'] ?? join(root, '.cache', 'debugger');

interface Setup {
  readonly engine: string;
  readonly host: string;
  readonly hostSource: string;
  readonly wine: string;
  readonly prefix: string;
}

function findSetup(): Setup | string {
  let setup: Setup;
  try {
    setup = JSON.parse(readFileSync(join(cache, 'setup.json'), 'utf8')) as Setup;
  } catch {
    return 'the debugger is not set up: run scripts/setup-debugger.sh';
  }
  const lost = [setup.host, setup.wine, setup.prefix].find((path) => !existsSync(path));
  if (lost) return `the debugger's set-up has lost ${lost}: run scripts/setup-debugger.sh`;
  const source = createHash('sha256')
    .update(readFileSync(new URL('host.c', import.meta.url)))
    .digest('hex');
  if (source !== setup.hostSource) return 'test/debugger/host.c has changed: run scripts/setup-debugger.sh';
  return setup;
}

let found: Setup | string | undefined;
const setup = (): Setup | string => {
  found ??= findSetup();
  return found;
};

/** Why the debugger cannot be used here, or undefined. */
export function debuggerMissing(): string | undefined {
  const state = setup();
  return typeof state === 'string' ? state : undefined;
}

/** For `describe.skipIf(!debuggerAvailable())`. With ELF2DMP_REQUIRE_TOOLS=1 a missing debugger is an error. */
export function debuggerAvailable(): boolean {
  const missing = debuggerMissing();
  if (missing === undefined) return true;
  if (process.env['ELF2DMP_REQUIRE_TOOLS'] === '1') throw new Error(missing);
  if (!told) console.warn(`skipping the tests with the real debugger: ${missing}`);
  told = true;
  return false;
}
let told = false;

export type DebuggerFailure = 'open' | 'command' | 'crash' | 'timeout' | 'engine' | 'parse';

/** `output` is everything that the engine said. */
export class DebuggerError extends Error {
  readonly failure: DebuggerFailure;
  readonly output: string;
  readonly hresult: number | undefined;

  constructor(failure: DebuggerFailure, message: string, output: string, hresult?: number) {
    super(`${message}${hresult === undefined ? '' : ` (HRESULT ${hex(hresult)})`}\n${output}`.trimEnd());
    this.name = 'DebuggerError';
    this.failure = failure;
    this.output = output;
    Object.defineProperty(this, 'output', { enumerable: false }); // the message has it already
    this.hresult = hresult;
  }
}

const hex = (value: number) => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;

export interface CommandResult {
  readonly command: string;
  readonly output: string;
  readonly hresult: number;
  readonly ok: boolean;
}

export interface Session {
  /** What the engine said while it opened the dump. */
  readonly opening: string;
  /** One for each command, in their order. */
  readonly results: readonly CommandResult[];
  /** The output of the first command spelt like this; a failed one throws. */
  output(command: string): string;
  /** How long the session took. */
  readonly milliseconds: number;
}

export interface SessionOptions {
  /** For the whole session, the first start of Wine included. */
  readonly timeoutSeconds?: number;
}

/**
 * Opens a dump and runs commands in it: the engine's own and those of host.c (`!phys`, `!regs` …). A command that
 * fails has its HRESULT in its result; everything else that goes wrong is a DebuggerError.
 */
export async function openInDebugger(
  dump: string,
  commands: readonly string[],
  options: SessionOptions = {},
): Promise<Session> {
  const state = setup();
  if (typeof state === 'string') throw new DebuggerError('engine', state, '');
  const bad = commands.find((command) => /[\r\n\0]/.test(command) || command === '');
  if (bad !== undefined) throw new DebuggerError('command', `not one line: ${JSON.stringify(bad)}`, '');

  const seconds = options.timeoutSeconds ?? 600;
  const mark = `##${randomBytes(8).toString('hex')}`;
  const started = performance.now();
  const directory = await mkdtemp(join(tmpdir(), 'elf2dmp-debugger-'));
  let raw: string;
  let exit: number | string;
  try {
    exit = await runHost(state, [mark, String(seconds), windowsPath(dump)], commands, seconds, directory);
    raw = await readFile(join(directory, 'out'), 'latin1');
    if (raw === '') raw = await readFile(join(directory, 'err'), 'latin1');
  } finally {
    await rm(directory, { recursive: true, force: true });
  }

  const parsed = parseOutput(raw, mark);
  const said = parsed.said;
  const last = commands[parsed.sections.size - 1];
  const when = last === undefined ? `while opening ${dump}` : `in "${last}" or after it, with ${dump}`;
  if (exit === EXIT.timeout || exit === 'SIGKILL')
    throw new DebuggerError('timeout', `the debugger took more than ${seconds} s ${when}`, said);
  const opening = parsed.sections.get('open');
  if (exit === EXIT.noDump || (opening && opening.hresult < 0))
    throw new DebuggerError('open', `the debugger does not open ${dump}`, said, opening?.hresult);
  if (exit === EXIT.crash) throw new DebuggerError('crash', `the debugger crashed ${when}`, said);
  if (exit !== 0 || !opening) throw new DebuggerError('engine', `the debugger's host ended with ${exit} ${when}`, said);

  const results = commands.map((command, n): CommandResult => {
    const section = parsed.sections.get(String(n));
    if (!section) throw new DebuggerError('engine', `the debugger left out "${command}"`, said);
    return { command, ...section, ok: section.hresult >= 0 };
  });
  return {
    opening: opening.output,
    results,
    milliseconds: performance.now() - started,
    output(command) {
      const result = results.find((each) => each.command === command);
      if (!result) throw new DebuggerError('command', `"${command}" was not among the commands`, '');
      return need(result);
    },
  };
}

const EXIT = { noDump: 4, crash: 5, timeout: 6 };

const windowsPath = (path: string) => `Z:${resolve(path).replaceAll('/', '\\')}`;

/** Leaves what the host prints in `directory`/out and err, and returns its exit code or signal. */
async function runHost(
  state: Setup,
  args: string[],
  commands: readonly string[],
  seconds: number,
  directory: string,
): Promise<number | string> {
  const { DISPLAY: _x, WAYLAND_DISPLAY: _wayland, ...env } = process.env;
  // Into files: Wine's own helpers inherit the descriptors and would keep a pipe open after the host has gone.
  await using out = await open(join(directory, 'out'), 'w');
  await using err = await open(join(directory, 'err'), 'w');
  const child = spawn(state.wine, [state.host, ...args], {
    stdio: ['pipe', out.fd, err.fd],
    env: {
      ...env,
      LC_ALL: 'C.UTF-8',
      WINEPREFIX: state.prefix,
      WINEARCH: 'win64',
      WINEDEBUG: '-all',
      WINEDLLOVERRIDES: 'dbgeng,dbghelp,dbgcore,dbgmodel,msdia140=n;mscoree,mshtml,winemenubuilder.exe=',
      // A directory without symbols or images: nothing but the dump may say what is in it.
      _NT_SYMBOL_PATH: windowsPath(directory),
    },
  });
  // The host has a watchdog of its own; this is for when it cannot even start.
  const killer = setTimeout(() => child.kill('SIGKILL'), (seconds + 10) * 1000);
  child.stdin?.on('error', () => {}); // it may end before it has read all
  child.stdin?.end(commands.map((command) => `${command}\n`).join(''));
  return await new Promise((done, fail) => {
    child.on('error', (error) => {
      clearTimeout(killer);
      fail(error);
    });
    child.on('exit', (code, signal) => {
      clearTimeout(killer);
      done(code ?? signal ?? 'nothing');
    });
  });
}

interface Section {
  readonly output: string;
  readonly hresult: number;
}

function parseOutput(raw: string, mark: string): { sections: Map<string, Section>; said: string } {
  const sections = new Map<string, Section>();
  const section = new RegExp(`^${mark} begin (\\w+)\\n([\\s\\S]*?)\\n${mark} end \\1 (0x[0-9a-f]+)$`, 'gm');
  for (const [, name, output, hresult] of raw.matchAll(section))
    sections.set(name!, { output: output!, hresult: Number(hresult) | 0 });
  return { sections, said: raw.replaceAll(new RegExp(`^${mark} `, 'gm'), '-- ') };
}

function need(result: CommandResult): string {
  if (!result.ok) throw new DebuggerError('command', `"${result.command}" failed`, result.output, result.hresult);
  return result.output;
}

// ---- questions with typed answers -------------------------------------------------------------------------

/** Commands, and how to read their results. */
export interface Question<T> {
  readonly commands: readonly string[];
  read(results: readonly CommandResult[], opening: string): T;
}

export type Answers<Q> = { [K in keyof Q]: Q[K] extends Question<infer T> ? T : never };

/** Asks all questions in one session: `const { bug, cpu0 } = await askDebugger(path, { bug: bugCheck(), cpu0: registers(0) })`. */
export async function askDebugger<Q extends Record<string, Question<unknown>>>(
  dump: string,
  questions: Q,
  options?: SessionOptions,
): Promise<Answers<Q>> {
  const entries = Object.entries(questions);
  const session = await openInDebugger(
    dump,
    entries.flatMap(([, question]) => question.commands),
    options,
  );
  let at = 0;
  const answers = entries.map(([name, question]) => {
    const results = session.results.slice(at, at + question.commands.length);
    at += question.commands.length;
    return [name, question.read(results, session.opening)];
  });
  return Object.fromEntries(answers) as Answers<Q>;
}

/** A question of the last of the commands; a failure of any is thrown. */
function question<T>(commands: string[], read: (output: string) => T): Question<T> {
  return {
    commands,
    read: (results) => {
      const outputs = results.map(need);
      return read(outputs.at(-1)!);
    },
  };
}

const on = (cpu: number | undefined, command: string) => (cpu === undefined ? [command] : [`!cpu ${cpu}`, command]);
const address = (value: bigint | number) => `0x${value.toString(16)}`;

/** Lines of name=value. */
function fields(text: string): Record<string, string> {
  return Object.fromEntries(
    text
      .split('\n')
      .map((line) => /^([^=]+)=(.*)$/.exec(line))
      .filter((match) => match !== null)
      .map((match) => [match[1]!, match[2]!]),
  );
}

function field(record: Record<string, string>, name: string): string {
  const value = record[name];
  if (value === undefined)
    throw new DebuggerError('parse', `no ${name} in the debugger's answer`, JSON.stringify(record));
  return value;
}

/** Records of name=value lines, an empty line after each. */
const records = (text: string) =>
  text
    .split('\n\n')
    .filter((part) => part.trim() !== '')
    .map(fields);

/** What a command prints. */
export function text(command: string, cpu?: number): Question<string> {
  return question(on(cpu, command), (output) => output);
}

/** What a command prints and its HRESULT, also when it fails. */
export function attempt(command: string, cpu?: number): Question<CommandResult> {
  return { commands: on(cpu, command), read: (results) => results.at(-1)! };
}

const COMPLAINT = new RegExp(
  [
    'WARNING: (Mismatch|Dump (file|header)|\\.reload failed|Unable to reset)',
    '^ERROR:',
    'PARTIALLY CORRUPT',
    'KdDebuggerData',
    'GetContextState failed',
    'CS descriptor lookup failed',
    'context is partially valid',
    'KiProcessorBlock\\[\\d+\\] is null',
    'Read(Control|Virtual)(\\(\\))? failed',
    'Module List address',
    'Missing image name',
    'Unable to (read|get) (?!PEB)',
    'not properly sign extended',
    'too large to be in the dump file',
    '64-bit machine not using 64-bit API',
  ].join('|'),
);

/** The lines in which the engine, while it opened the dump, found fault with the dump itself (not with missing symbols). */
export function complaints(): Question<string[]> {
  return { commands: [], read: (_, opening) => opening.split('\n').filter((line) => COMPLAINT.test(line)) };
}

/** All registers of a processor by the engine's names: rax … r15, rip, efl, cs, dr7, xmm0, cr3, gdtr, gdtl … */
export function registers(cpu: number): Question<Record<string, bigint>> {
  return question(on(cpu, '!regs'), (output) =>
    Object.fromEntries(
      Object.entries(fields(output))
        .filter(([, value]) => value.startsWith('0x'))
        .map(([name, value]) => [name, BigInt(value)]),
    ),
  );
}

export interface DebuggerModule {
  readonly name: string;
  readonly base: bigint;
  readonly size: number;
  readonly timestamp: number;
  readonly checksum: number;
  readonly image: string;
}

/** The loaded modules, as the engine lists them. */
export function modules(): Question<DebuggerModule[]> {
  return question(['!modules'], (output) =>
    records(output).map((each) => ({
      name: field(each, 'name'),
      base: BigInt(field(each, 'base')),
      size: Number(field(each, 'size')),
      timestamp: Number(field(each, 'timestamp')),
      checksum: Number(field(each, 'checksum')),
      image: field(each, 'image'),
    })),
  );
}

export interface BugCheck {
  readonly code: number;
  readonly parameters: readonly [bigint, bigint, bigint, bigint];
}

export function bugCheck(): Question<BugCheck> {
  return question(['!bugcheckdata'], (output) => {
    const each = fields(output);
    const parameter = (n: number) => BigInt(field(each, `parameter${n}`));
    return { code: Number(field(each, 'code')), parameters: [parameter(1), parameter(2), parameter(3), parameter(4)] };
  });
}

export interface SystemAnswer {
  /** MajorVersion of the dump: 0xf for a free build. */
  readonly major: number;
  readonly build: number;
  readonly buildText: string;
  readonly servicePackText: string;
  readonly processors: number;
  /** IMAGE_FILE_MACHINE_*: what the dump says, and how the engine reads the current processor. */
  readonly processorType: number;
  readonly effectiveProcessorType: number;
  /** DEBUG_CLASS_* (1 is kernel) and DEBUG_DUMP_* (1026 full, 1029 bitmap …). */
  readonly class: number;
  readonly qualifier: number;
  /** Seconds since 1970, undefined where the dump does not say. */
  readonly time: number | undefined;
  readonly uptimeSeconds: number | undefined;
}

export function system(): Question<SystemAnswer> {
  return question(['!system'], (output) => {
    const each = fields(output);
    const number = (name: string) => Number(field(each, name));
    const optional = (name: string) => (each[name] === undefined ? undefined : Number(each[name]));
    return {
      major: number('major'),
      build: number('minor'),
      buildText: field(each, 'buildText'),
      servicePackText: field(each, 'servicePackText'),
      processors: number('processors'),
      processorType: number('processorType'),
      effectiveProcessorType: number('effectiveProcessorType'),
      class: number('class'),
      qualifier: number('qualifier'),
      time: optional('time'),
      uptimeSeconds: optional('uptime'),
    };
  });
}

function bytes(output: string): Buffer {
  const [head, ...lines] = output.trimEnd().split('\n');
  const found = Buffer.from(lines.join(''), 'hex');
  if (head !== `length ${found.length}`) throw new DebuggerError('parse', 'memory is not as long as it says', output);
  return found;
}

/** Virtual memory as a processor sees it; shorter than asked for where a page is missing, an error if all is. */
export function virtualMemory(at: bigint, length: number, cpu = 0): Question<Buffer> {
  return question(on(cpu, `!virt ${address(at)} ${length}`), bytes);
}

export function physicalMemory(at: bigint | number, length: number): Question<Buffer> {
  return question([`!phys ${address(at)} ${length}`], bytes);
}

export interface DebuggerFrame {
  readonly instruction: bigint;
  readonly return: bigint;
  readonly frame: bigint;
  readonly stack: bigint;
  /** "module!symbol", "module" or "", and how far behind it the instruction is. */
  readonly symbol: string;
  readonly offset: bigint;
}

export function stack(cpu: number, limit = 64): Question<DebuggerFrame[]> {
  return question(on(cpu, `!stack ${limit}`), (output) =>
    records(output).map((each) => ({
      instruction: BigInt(field(each, 'instruction')),
      return: BigInt(field(each, 'return')),
      frame: BigInt(field(each, 'frame')),
      stack: BigInt(field(each, 'stack')),
      symbol: field(each, 'symbol'),
      offset: BigInt(field(each, 'offset')),
    })),
  );
}

export interface Instruction {
  readonly address: bigint;
  readonly bytes: string;
  readonly text: string;
}

/** The instruction at a processor's RIP or EIP, as `u @rip L1` disassembles it. */
export function instruction(cpu: number, register: 'rip' | 'eip' = 'rip'): Question<Instruction> {
  return question(on(cpu, `u @${register} L1`), (output) => {
    const match = /^((?:[0-9a-f]{8}`)?[0-9a-f]{8}) ([0-9a-f]+) +(.*\S) *$/m.exec(output);
    if (!match) throw new DebuggerError('parse', 'no instruction in the answer to "u"', output);
    return { address: wide(match[1]!), bytes: match[2]!, text: match[3]!.replaceAll(/ +/g, ' ') };
  });
}

export interface Vertarget {
  readonly build: number;
  readonly processors: number;
  /** "Product: WinNt, suite: …" */
  readonly product: string;
  readonly buildLab: string | undefined;
  readonly kernelBase: bigint;
  readonly loadedModuleList: bigint;
  readonly sessionTime: string | undefined;
  readonly uptime: string | undefined;
  readonly text: string;
}

export function vertarget(): Question<Vertarget> {
  return question(['vertarget'], (output) => {
    const optional = (pattern: RegExp) => pattern.exec(output)?.[1]?.trim();
    const get = (pattern: RegExp) => {
      const value = optional(pattern);
      if (value === undefined) throw new DebuggerError('parse', `no ${pattern} in what "vertarget" prints`, output);
      return value;
    };
    return {
      build: Number(get(/ Version (\d+)/)),
      processors: /\bUP\b/.test(output) ? 1 : Number(get(/\((\d+) procs\)/)),
      product: get(/^(Product: .*)$/m),
      buildLab: optional(/^(?:Edition build lab|Built by): (.*)$/m),
      kernelBase: wide(get(/Kernel base = 0x([0-9a-f`]+)/)),
      loadedModuleList: wide(get(/PsLoadedModuleList = 0x([0-9a-f`]+)/)),
      sessionTime: optional(/^Debug session time: (.*)$/m),
      uptime: optional(/^System Uptime: (.*)$/m),
      text: output,
    };
  });
}

/** fffff800`00041000 */
const wide = (digits: string) => BigInt(`0x${digits.replace('`', '')}`);

export interface DumpDebug {
  /** "64 bit Kernel Full Dump Analysis" */
  readonly title: string;
  /** The header by the engine's names: DirectoryTableBase, BugCheckCode, KdDebuggerDataBlock … */
  readonly header: Readonly<Record<string, bigint>>;
  readonly runs: readonly { readonly start: bigint; readonly length: bigint }[];
  readonly processorBlock: bigint | undefined;
  readonly prcbs: readonly bigint[];
  readonly text: string;
}

/** The engine's own reading of the dump's header. */
export function dumpDebug(): Question<DumpDebug> {
  return question(['.dumpdebug'], (output) => {
    const title = /^----- (.*)$/m.exec(output)?.[1];
    if (title === undefined) throw new DebuggerError('parse', 'no title in what ".dumpdebug" prints', output);
    const block = /^KiProcessorBlock at ([0-9a-f`]+)\n.*\n([\s\S]*)/m.exec(output);
    return {
      title,
      header: Object.fromEntries(
        [...output.matchAll(/^([A-Z]\w+) +((?:[0-9a-f]{8}`)?[0-9a-f]{8})$/gm)].map((match) => [
          match[1]!,
          wide(match[2]!),
        ]),
      ),
      runs: [...output.matchAll(/^ +[0-9a-f`]{17} +([0-9a-f`]{17}) +([0-9a-f`]{17})$/gm)].map((match) => ({
        start: wide(match[1]!),
        length: wide(match[2]!),
      })),
      processorBlock: block ? wide(block[1]!) : undefined,
      prcbs: [...(block?.[2] ?? '').matchAll(/[0-9a-f]{8}`[0-9a-f]{8}/g)].map((match) => wide(match[0])),
      text: output,
    };
  });
}
