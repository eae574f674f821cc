/** The command line, parsed with yargs. */
import type { Argv } from 'yargs';
import { Elf2dmpError } from '../core/errors.ts';
import { VERSION } from '../version.ts';
import { addBatch } from './commands/batch.ts';
import { addCompletion } from './commands/completion.ts';
import { addConvert, conversionJob, PLAIN_CONVERSION } from './commands/convert.ts';
import { addInfo } from './commands/info.ts';
import { addStack } from './commands/stack.ts';
import { addVerify } from './commands/verify.ts';
import { EXIT_CODE_HELP } from './exit-codes.ts';
import { type CommandHelp, commandNames, parseHelp } from './help-text.ts';
import { type AddCommand, type Job, PARSER_CONFIGURATION } from './job.ts';
import { STANDARD_INPUT_WORD, usage } from './values.ts';

const COMMANDS: readonly AddCommand[] = [
  addConvert,
  addBatch,
  addInfo,
  addVerify,
  addStack,
  addCompletion(commandHelp),
];

/** What a command other than the conversion begins with. */
export const COMMAND_WORDS: ReadonlySet<string> = new Set(['batch', 'info', 'verify', 'stack', 'completion']);

/** Text to print and be done, or what to do. Throws `Elf2dmpError` (kind `usage`). */
export async function parseArguments(argv: readonly string[]): Promise<{ print: string } | { job: Job }> {
  // The most frequent command line says it all by itself; the parser takes longer to load than Windows to locate.
  const [input, output] = argv;
  if (argv.length === 2 && !COMMAND_WORDS.has(input!) && !argv.some((word) => word.startsWith('-'))) {
    return { job: conversionJob({ ...PLAIN_CONVERSION, input, output }) };
  }
  let job: Job | undefined;
  let problem: string | undefined;
  const parser = (
    await makeParser((chosen) => {
      job = chosen;
    })
  )
    .wrap(100)
    .fail((message, error) => {
      if (error instanceof Elf2dmpError) throw error;
      problem = message?.startsWith('Not enough non-option')
        ? 'INPUT and OUTPUT are needed'
        : (message ?? error?.message ?? 'wrong arguments').replace(/\s+/g, ' ');
    });
  let print = '';
  try {
    print = await parse(parser, plainNames(argv));
  } catch (error) {
    // A command is called all the same, and may find more wrong: the first problem is the one to tell.
    if (problem === undefined) throw error;
  }
  if (problem !== undefined) throw usage(problem);
  return job ? { job } : { print };
}

/** The help of every command, the default one first. */
export async function commandHelp(): Promise<CommandHelp[]> {
  const help = async (...words: string[]) =>
    parse((await makeParser(() => undefined)).wrap(null), [...words, '--help']);
  const standard = await help();
  const commands = [parseHelp('', standard)];
  for (const name of commandNames(standard)) commands.push(parseHelp(name, await help(name)));
  return commands;
}

async function makeParser(chosen: (job: Job) => void): Promise<Argv> {
  const { default: yargs } = await import('yargs');
  let parser: Argv = yargs()
    .scriptName('elf2dmp')
    // Messages in one language, whatever the environment: scripts read them too.
    .locale('en')
    .parserConfiguration(PARSER_CONFIGURATION);
  for (const add of COMMANDS) parser = add(parser, chosen);
  return parser
    .usage(
      "$0 INPUT OUTPUT [options]\n$0 --in-place FILE [options]\n$0 --undo FILE\n\nTurns a Windows guest's memory, as QEMU or libvirt dumped it to a file, into a crash dump for WinDbg.",
    )
    .version(VERSION)
    .help()
    .alias({ help: 'h' })
    .strict()
    .epilogue(EXIT_CODE_HELP)
    .exitProcess(false)
    .showHelpOnFail(false);
}

/** What yargs prints. */
async function parse(parser: Argv, words: string[]): Promise<string> {
  let printed = '';
  await parser.parseAsync(words, {}, (_error, _args, output) => {
    printed = output;
  });
  return printed;
}

/**
 * yargs makes an empty string of `-` and an option of a name that begins with one, also behind `--`:
 * names are spelled so that it takes them for names.
 * `--compress` alone takes no value, and must not take the next word for one.
 */
function plainNames(argv: readonly string[]): string[] {
  const end = argv.indexOf('--');
  const options = end < 0 ? argv : argv.slice(0, end);
  const names = end < 0 ? [] : argv.slice(end + 1);
  const plain = (word: string) => (word === '-' ? STANDARD_INPUT_WORD : word);
  return [
    ...options.map((word) => (word === '--compress' ? '--compress=gzip' : plain(word))),
    ...names.map((name) => (name.startsWith('-') && name !== '-' ? `./${name}` : plain(name))),
  ];
}
