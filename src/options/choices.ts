/** Names for option types that several rooms use. */
import type { OptionValue } from './values.ts';

/** Whose registers a crashed guest shows. */
export type ContextChoice = OptionValue<'context'>;
/** What a dump holds; `auto` is `full` or `bitmap`. */
export type DumpTypeChoice = OptionValue<'type'>;
/** Whose stacks a triage dump has. */
export type TriageCpuChoice = OptionValue<'triage-cpus'>;
/** Whether a dump shares the input's blocks. */
export type ReflinkChoice = OptionValue<'reflink'>;
/** How much of the input's memory a dump holds. */
export type RamChoice = OptionValue<'ram'>;
/** Holes in a dump: the input's, also runs of zeros, or none. */
export type SparseChoice = OptionValue<'sparse'>;
/** How a dump is compressed. */
export type Compression = OptionValue<'compress'>;
/** `raw` takes any file for physical memory without a header. */
export type FormatChoice = OptionValue<'format'>;

/** As a path: standard input, or standard output where something is written. */
export const STANDARD_STREAM = '-';
