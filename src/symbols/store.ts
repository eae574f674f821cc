/**
 * Where PDBs are searched for: symbol stores, flat directories and single files on this machine. A PDB is accepted by
 * its GUID and age only. Nothing is fetched.
 */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Elf2dmpError, ioError } from '../core/errors.ts';
import { because, type Reason } from '../core/reason.ts';
import { FileSource } from '../source/file.ts';
import { isUsableName, type PdbIdentity, pdbFileName, storeKey } from './identity.ts';
import { PdbFile } from './pdb.ts';

/** Files of a flat directory that are opened to see which PDBs they are. */
const MAX_FLAT_FILES = 4096;

/** A file that was taken for the PDB by its name, and is not it or cannot be used. */
export interface RefusedPdb {
  path: string;
  code: 'mismatch' | 'compressed' | 'unusable';
  reason: Reason;
}

/** What a search came to. */
export interface FoundPdb {
  /** Open: to be closed by the caller. */
  pdb: PdbFile | undefined;
  refused: readonly RefusedPdb[];
}

type Place = { kind: 'file' | 'directory'; path: string };

/** Places to search for PDBs, in their order. */
export class SymbolStore {
  readonly #places: readonly Place[];
  /** Names in a directory, by their lower-case form. */
  readonly #listings = new Map<string, ReadonlyMap<string, string>>();
  /** GUID and age of files, or why they are none. */
  readonly #identities = new Map<string, Pick<PdbIdentity, 'guid' | 'age'> | RefusedPdb>();

  /** Throws `Elf2dmpError` where a path cannot be looked at. */
  constructor(paths: readonly string[]) {
    this.#places = paths.map((path) => {
      try {
        return { kind: statSync(path).isDirectory() ? 'directory' : 'file', path };
      } catch (cause) {
        throw ioError('look for symbols', path, cause);
      }
    });
  }

  /** Whether there is anywhere to look. */
  get empty(): boolean {
    return this.#places.length === 0;
  }

  /** The PDB of an image, from the first place that has it. */
  find(wanted: PdbIdentity): FoundPdb {
    const name = pdbFileName(wanted);
    const refused: RefusedPdb[] = [];
    if (!isUsableName(name)) return { pdb: undefined, refused };
    for (const place of this.#places) {
      for (const path of this.#candidates(place, name, wanted)) {
        const identity = this.#identify(path);
        if ('reason' in identity) {
          if (isNamed(path, name)) refused.push(identity);
        } else if (identity.guid === wanted.guid && identity.age === wanted.age) {
          return { pdb: PdbFile.open(FileSource.open(path)), refused };
        } else if (isNamed(path, name)) {
          const reason = because(`its GUID and age are ${storeKey(identity)}, the image's ${storeKey(wanted)}`);
          refused.push({ path, code: 'mismatch', reason });
        }
      }
    }
    return { pdb: undefined, refused };
  }

  /** Files that may be the PDB, most likely first. */
  *#candidates({ kind, path }: Place, name: string, wanted: PdbIdentity): Generator<string> {
    if (kind === 'file') {
      yield path;
      return;
    }
    // A store of two tiers has the first two letters of the name above it.
    for (const root of [path, this.#entry(path, name.slice(0, 2))]) {
      const home = root && this.#entry(root, name);
      const build = home && this.#entry(home, storeKey(wanted));
      const file = build && (this.#entry(build, name) ?? this.#entry(build, compressedName(name)));
      if (file) yield file;
    }
    const flat = [this.#entry(path, name), this.#entry(path, compressedName(name))].filter(
      (each) => each !== undefined,
    );
    const named = flat.filter((each) => isFile(each));
    yield* named;
    // Under any other name: the GUID decides.
    let count = 0;
    for (const each of this.#listing(path).values()) {
      const file = join(path, each);
      if (!/\.pdb$/i.test(each) || named.includes(file)) continue;
      if (++count > MAX_FLAT_FILES) return;
      if (isFile(file)) yield file;
    }
  }

  /** The path of a directory's entry; stores were made where case does not matter. */
  #entry(directory: string, name: string): string | undefined {
    if (name === '') return undefined;
    const exact = join(directory, name);
    if (existsSync(exact)) return exact;
    const found = this.#listing(directory).get(name.toLowerCase());
    return found === undefined ? undefined : join(directory, found);
  }

  #listing(directory: string): ReadonlyMap<string, string> {
    let listing = this.#listings.get(directory);
    if (!listing) {
      listing = new Map(readDirectory(directory).map((name) => [name.toLowerCase(), name]));
      this.#listings.set(directory, listing);
    }
    return listing;
  }

  #identify(path: string): Pick<PdbIdentity, 'guid' | 'age'> | RefusedPdb {
    let identity = this.#identities.get(path);
    if (!identity) {
      identity = identify(path);
      this.#identities.set(path, identity);
    }
    return identity;
  }
}

function identify(path: string): Pick<PdbIdentity, 'guid' | 'age'> | RefusedPdb {
  let source: FileSource | undefined;
  try {
    source = FileSource.open(path);
    const { guid, age } = PdbFile.open(source);
    return { guid, age };
  } catch (error) {
    if (!(error instanceof Elf2dmpError)) throw error;
    const code = error.code === 'pdb-compressed' ? 'compressed' : 'unusable';
    const { hint } = error.details;
    return { path, code, reason: because(hint ? `${error.message}; ${hint}` : error.message) };
  } finally {
    source?.close();
  }
}

/** Directories that are not to be read are as empty: the store's root was looked at. */
function readDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** `name.pd_` for `name.pdb`. */
const compressedName = (name: string): string => `${name.slice(0, -1)}_`;

const isNamed = (path: string, name: string): boolean => {
  const own = basename(path).toLowerCase();
  return own === name.toLowerCase() || own === compressedName(name).toLowerCase();
};
