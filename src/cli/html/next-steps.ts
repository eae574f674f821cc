/** What to do with a dump, on its page: how to open it, and the commands that fit its bug check. */

import type { PageData } from '../../report/page.ts';
import { commandsFor, LIVE_COMMANDS } from '../../windows/bug-check-commands.ts';
import { type Html, html } from './html.ts';

const SYMBOL_PATH = 'srv*C:\\Symbols*https://msdl.microsoft.com/download/symbols';

/** A command, and what it is for. */
type Step = readonly [command: string, why: string];

/** undefined where there is nothing that a debugger can open. */
export function nextSteps(data: PageData): Html | undefined {
  const { windows: w } = data;
  if (!w) return undefined;
  const { bugCheck, culprit, fault } = w;
  const fitting = bugCheck
    ? commandsFor(
        Number(bugCheck.code),
        bugCheck.parameters.map(({ value }) => BigInt(value)),
      )
    : LIVE_COMMANDS;
  const steps: Step[] = [
    ...opening(data),
    [`.sympath ${SYMBOL_PATH}`, "where the symbols are: add your own drivers' directory"],
    ['.reload; !analyze -v', "the debugger's own analysis"],
    // Those that a parameter names are among the commands that fit the bug check.
    ...(fault && fault.parameter === null
      ? [[`.trap ${fault.address}; k`, 'registers and stack at the fault'] as const]
      : []),
    ...fitting.map(({ command, why }): Step => [command, why]),
    // By address: a guest's text is not for pasting.
    ...(culprit?.at ? [[`lmv a ${culprit.at.base}`, 'the likely culprit: version, time stamp, symbols'] as const] : []),
  ];
  return html`
<dl class="steps">${steps.map(([command, why]) => html`<div><dt><code>${command}</code></dt><dd>${why}</dd></div>\n`)}</dl>`;
}

function opening({ conversion, input }: PageData): Step[] {
  const name = (path: string) => (/^[\w.+-]+$/.test(baseOf(path)) ? baseOf(path) : `"${baseOf(path)}"`);
  if (conversion) return [[`windbg -z ${name(conversion.dump.path)}`, 'opens the crash dump, on Windows']];
  if (input.format.startsWith('windows-'))
    return [[`windbg -z ${name(input.path)}`, 'opens the crash dump, on Windows']];
  return [
    [`elf2dmp ${name(input.path)} vm.dmp`, 'makes a crash dump of this file'],
    ['windbg -z vm.dmp', 'opens it, on Windows'],
  ];
}

const baseOf = (path: string): string => path.split('/').at(-1) ?? path;
