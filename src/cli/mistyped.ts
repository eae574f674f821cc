/** A command's word that was mistyped would be taken for INPUT. */
import { existsSync } from 'node:fs';
import { closest } from '../options/similar.ts';
import { COMMAND_WORDS, isCommandWord } from './command-table.ts';
import { usage } from './usage.ts';

/** The command that a word was meant for; undefined where it resembles none. */
export const commandLike = (word: string): string | undefined => closest(word, [...COMMAND_WORDS]);

/** Throws `Elf2dmpError` (kind `usage`) if a conversion's first word is no file, but nearly a command. */
export function refuseMistyped(word: string | undefined): void {
  if (word === undefined || isCommandWord(word) || !/^[a-z]+$/i.test(word)) return;
  const meant = commandLike(word);
  if (meant === undefined || existsSync(word)) return;
  throw usage(`"${word}" is neither a command nor a file`, 'convert', `did you mean elf2dmp ${meant}?`);
}
