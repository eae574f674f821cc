/** In the executable in one file there is no package.json: the build defines the version. */
declare const ELF2DMP_VERSION: string;

/** As in src/version.ts. */
export const VERSION: string = ELF2DMP_VERSION;

/** As in src/version.ts. */
export const TOOL = { name: 'elf2dmp' as const, version: VERSION };
