/** Writes the documents that are made from the source: docs/errors.md. `npm run docs` */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { DIAGNOSTICS, ERRORS, type ErrorKind, FINDINGS } from '../src/core/codes.ts';
import { EXIT_OF_KIND } from '../src/core/exit-codes.ts';

const KINDS: Record<ErrorKind, string> = {
  usage: 'Wrong arguments or options',
  unsupported: 'The input is sound, but elf2dmp does not convert it',
  corrupt: 'The input is damaged or cut off beyond use',
  'io-permanent': 'Input or output that fails again when tried again',
  'io-transient': 'Input or output that may work later',
  losses: '`--strict`: the dump would have losses',
  aborted: 'Interrupted, or a bug',
};

type Table = Record<string, { means: string; todo?: string; severity?: string | readonly string[] }>;

/** docs/errors.md */
export function errorsDocument(): string {
  const kinds = Object.keys(KINDS) as ErrorKind[];
  const errors = kinds.flatMap((kind) => {
    const rows = Object.entries(ERRORS).filter(([, { kind: of }]) => [of].flat().some((k) => k === kind));
    const io = kind === 'io-permanent' || kind === 'io-transient';
    return [
      `### ${KINDS[kind]}: \`${kind}\`, exit code ${EXIT_OF_KIND[kind]}${kind === 'aborted' ? ' (129, 130, 131 or 143 after a signal)' : ''}`,
      '',
      ...table(Object.fromEntries(rows), io ? [['io-ERRNO', IO[kind], 'The hint says what to do.']] : []),
      '',
    ];
  });
  return [
    '# Errors, diagnostics and findings',
    '',
    '<!-- Made from src/core/codes.ts by `npm run docs`: edit that. -->',
    '',
    'Every error, diagnostic and finding has a code that scripts can rely on: `error.code` and `diagnostics[].code`',
    'in the JSON reports, `code` of an `Elf2dmpError`. Messages are for people and change. The message and its hint',
    'say more than this page: they name the file, the offset, what was expected and what was found.',
    '',
    '## Errors',
    '',
    'No dump is written.',
    '',
    ...errors,
    '## Diagnostics',
    '',
    'The command went on. A `loss` makes the outcome `losses` and the exit code 3 (with `--strict` an error); a `warning`',
    'deserves a look, but nothing is missing from the dump; a `note` is for information.',
    '',
    ...table(DIAGNOSTICS),
    '',
    '## Findings of `verify`',
    '',
    'An `error` makes the dump unsound, or different from its input (exit code 8). `verify` also reports errors and',
    'losses from above that it meets in the dump, under their codes.',
    '',
    ...table(FINDINGS),
    '',
  ].join('\n');
}

const IO = {
  'io-permanent': 'A system call failed: `io-enoent` (missing), `io-eacces` (denied) and so on.',
  'io-transient': 'A system call failed: `io-enospc` (disk full), `io-eio` (I/O error) and so on.',
};

function table(entries: Table, more: readonly (readonly [string, string, string])[] = []): string[] {
  const severities = Object.values(entries).some((e) => e.severity !== undefined);
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    row(['code', ...(severities ? ['severity'] : []), 'what it means', 'what to do']),
    row(['---', ...(severities ? ['---'] : []), '---', '---']),
    ...Object.entries(entries).map(([code, { means, todo = '', severity = '' }]) =>
      row([`\`${code}\``, ...(severities ? [[severity].flat().join(' or ')] : []), means, todo]),
    ),
    ...more.map(([code, means, todo]) => row([`\`${code}\``, means, todo])),
  ];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../docs/errors.md', import.meta.url), errorsDocument());
}
