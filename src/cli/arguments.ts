/** Turns a command line into text to print or a job to run. */
import { COMMAND_WORDS, COMMANDS, type CommandName, commandLine, isCommandWord } from './command-table.ts';
import { batchJob } from './commands/batch.ts';
import { completionJob } from './commands/completion.ts';
import { conversionJob } from './commands/convert.ts';
import { doctorJob } from './commands/doctor.ts';
import { infoJob } from './commands/info.ts';
import { stackJob } from './commands/stack.ts';
import { verifyJob } from './commands/verify.ts';
import type { Job } from './job.ts';
import { commandLike, refuseMistyped } from './mistyped.ts';
import type { Given } from './parse.ts';
import { usage } from './usage.ts';

const JOBS: Readonly<Record<CommandName, (given: Given) => Job>> = {
  convert: conversionJob,
  batch: batchJob,
  info: infoJob,
  verify: verifyJob,
  stack: stackJob,
  doctor: doctorJob,
  completion: completionJob,
};

/** The text or the job that the words ask for. Throws `Elf2dmpError` (kind `usage`). */
export async function parseArguments(argv: readonly string[]): Promise<{ print: string } | { job: Job }> {
  // Loading the parser takes longer than locating Windows, and the most frequent command line does not need it.
  if (isPlain(argv)) {
    refuseEmpty('convert', argv);
    refuseMistyped(argv[0]);
    return { job: conversionJob(plain(argv)) };
  }
  if (argv[0] === 'help') return help(commandAsked(argv[1]));
  const { parseWords } = await import('./parse.ts');
  const given = parseWords(argv);
  if (given.help) return help(given.command);
  if (given.version) return { print: await version(given.values['verbose'] === true) };
  checkArguments(given);
  return { job: JOBS[given.command](given) };
}

/** INPUT OUTPUT and nothing else. */
const isPlain = (argv: readonly string[]): boolean =>
  argv.length === 2 && !COMMAND_WORDS.has(argv[0]!) && !argv.some((word) => word.startsWith('-'));

const plain = (names: readonly string[]): Given => ({
  command: 'convert',
  names,
  raw: {},
  values: {},
  help: false,
  version: false,
});

async function help(command: CommandName): Promise<{ print: string }> {
  const { renderHelp } = await import('./help.ts');
  return { print: renderHelp(command, process.stdout.columns) };
}

async function version(verbose: boolean): Promise<string> {
  if (!verbose) return (await import('../version.ts')).VERSION;
  const [{ describeHost }, { renderVersion }] = await Promise.all([
    import('../operations/doctor.ts'),
    import('./text/render-doctor.ts'),
  ]);
  return renderVersion(await describeHost());
}

function commandAsked(word: string | undefined): CommandName {
  if (word === undefined || word === 'help') return 'convert';
  if (isCommandWord(word)) return word;
  const meant = commandLike(word);
  throw usage(`"${word}" is not a command`, 'convert', meant && `did you mean elf2dmp help ${meant}?`);
}

/** An empty name is a variable of a script that is not set: the current directory is not meant. */
function refuseEmpty(command: CommandName, names: readonly string[]): void {
  const at = names.indexOf('');
  if (at < 0) return;
  const { arguments: declared } = COMMANDS[command];
  throw usage(
    `${(declared[at] ?? declared.at(-1))?.name ?? 'an argument'} is empty`,
    command,
    'is the variable that it comes from unset?',
  );
}

/** Checks the number of names; a conversion's depends on its options. */
function checkArguments({ command, names }: Given): void {
  const { arguments: declared } = COMMANDS[command];
  refuseEmpty(command, names);
  if (declared.some(({ kind }) => kind === 'paths')) return;
  const extra = names[declared.length];
  if (extra !== undefined) throw usage(`unexpected argument: ${extra}`, command);
  if (command === 'convert') return;
  for (const [i, { name, choices, optional }] of declared.entries()) {
    const given = names[i];
    if (given === undefined && optional) continue;
    if (given === undefined) throw usage(`${commandLine(command)} needs ${name}`, command);
    if (choices && !choices.includes(given)) {
      throw usage(`${name}: expected one of ${choices.join(', ')}, found "${given}"`, command);
    }
  }
}
