/**
 * Writes the tables of options in README.md and docs/options.md from the table in src/options.
 * `npm run docs` after a change; a test fails if they are stale.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { COMMANDS } from '../src/cli/command-table.ts';
import { type CommandHelp, describeCommand, describeCommands, optionSyntax } from '../src/cli/describe.ts';

const BEGIN = '<!-- options: written by scripts/options-docs.ts -->';
const END = '<!-- end of options -->';

export const DOCUMENTS = ['README.md', 'docs/options.md'] as const;

export const pathOf = (document: (typeof DOCUMENTS)[number]): string =>
  fileURLToPath(new URL(`../${document}`, import.meta.url));

/** The document with what is between its markers as it should be. */
export function withOptions(document: (typeof DOCUMENTS)[number], text: string): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`${document} has no markers for the options`);
  return `${text.slice(0, begin)}${BEGIN}\n${CONTENTS[document]()}${text.slice(end)}`;
}

const CONTENTS: Record<(typeof DOCUMENTS)[number], () => string> = {
  'README.md': () => table(describeCommand('convert')),
  'docs/options.md': () =>
    describeCommands()
      .map((command) => {
        const ways = COMMANDS[command.name].usage.map((way) => `elf2dmp ${way}\n`).join('');
        const title = command.name === 'convert' ? 'elf2dmp' : `elf2dmp ${command.name}`;
        return `## ${title}\n\n\`\`\`\n${ways}\`\`\`\n\n${command.summary}\n\n${table(command)}\n`;
      })
      .join(''),
};

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');

const table = ({ options }: CommandHelp): string =>
  [
    '| option | meaning |',
    '| --- | --- |',
    ...options.map((option) => `| \`${cell(optionSyntax(option)).replaceAll(', ', '`, `')}\` | ${cell(option.text)} |`),
    '',
  ].join('\n');

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const document of DOCUMENTS) {
    writeFileSync(pathOf(document), withOptions(document, readFileSync(pathOf(document), 'utf8')));
  }
}
