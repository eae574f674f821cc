import { readFileSync } from 'node:fs';

/** This package's version, from package.json beside dist/ and src/ alike. */
export const VERSION: string = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;

/** What reports name as their maker. */
export const TOOL = { name: 'elf2dmp' as const, version: VERSION };
