import { describe, expect, it } from 'vitest';
import { importsOf, roomOf, sourceFiles, undocumented } from './house.ts';

/** The rooms, from the top: a room imports from rooms below it only, and not from those beside it. */
const TOWER: readonly (readonly string[])[] = [
  ['cli'],
  ['index.ts'],
  ['batch'],
  ['operations'],
  ['verify'],
  ['report'],
  ['write'],
  ['plan'],
  ['locate'],
  ['readers', 'windows'],
  ['memory', 'symbols'],
  ['machines', 'files'],
  ['source', 'formats'],
  ['options'],
  ['core', 'version.ts'],
];

/** Imports that go up and are known. This list may only get shorter. */
const KNOWN_UPWARD: readonly string[] = [];

/** Exported declarations without a doc comment. This number may only fall. */
const UNDOCUMENTED_MAX = 125;

const files = sourceFiles();
const levels = new Map(TOWER.flatMap((rooms, level) => rooms.map((room) => [room, level] as const)));

describe('the tower of rooms', () => {
  it('has a place for every folder of src', () => {
    const rooms = [...new Set(files.map(({ path }) => roomOf(path)))];
    const unknown = rooms.filter((room) => !levels.has(room));
    expect(unknown, 'put new rooms into TOWER, and into the plan in CONTRIBUTING.md').toEqual([]);
    expect(rooms.sort(), 'rooms that are gone').toEqual([...levels.keys()].sort());
  });

  it('is imported from above only', () => {
    const upward = files.flatMap((file) =>
      importsOf(file)
        .filter((target) => roomOf(target) !== roomOf(file.path))
        .filter((target) => !(levels.get(roomOf(target))! > levels.get(roomOf(file.path))!))
        .map((target) => `${file.path} -> ${target}`),
    );
    expect(upward.sort(), 'imports go down: move what both need to a room below them').toEqual(
      [...KNOWN_UPWARD].sort(),
    );
  });

  it('sees imports of every kind', () => {
    const text =
      "import 'x';\nimport type { A } from '../core/a.ts';\nexport * from './b.ts';\nawait import('../cli/c.ts');";
    expect(importsOf({ path: 'plan/p.ts', text })).toEqual(['core/a.ts', 'plan/b.ts', 'cli/c.ts']);
  });
});

describe('exports', () => {
  it('have doc comments', () => {
    const names = files.flatMap((file) => undocumented(file).map((name) => `${file.path}: ${name}`));
    expect(names.length, `exports without a doc comment:\n${names.join('\n')}`).toBeLessThanOrEqual(UNDOCUMENTED_MAX);
  });

  it('are seen with and without', () => {
    const text =
      '/** Yes. */\nexport const a = 1;\n\nexport const b = 2;\n\n/**\n * Yes.\n */\nexport async function c() {}\nexport type D = 1;\n/** Group. */\nexport const E = 1;\nexport const F = 2;\n\nexport const G = 3;\n';
    expect(undocumented({ path: 'x', text })).toEqual(['b', 'D', 'G']);
  });
});
