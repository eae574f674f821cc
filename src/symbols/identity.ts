/** What says which PDB belongs to which build of an image. */

/** Name, GUID and age that a symbol server files a PDB under. */
export interface PdbIdentity {
  /** As the image has it, at times with the path of the machine that it was built on. */
  name: string;
  /** 32 upper-case hex digits in the order that symbol servers use. */
  guid: string;
  age: number;
}

/** A GUID's 16 bytes as symbol servers print it. */
export function guidText(bytes: Buffer): string {
  const hex = (value: number, digits: number) => value.toString(16).toUpperCase().padStart(digits, '0');
  return (
    hex(bytes.readUInt32LE(0), 8) +
    hex(bytes.readUInt16LE(4), 4) +
    hex(bytes.readUInt16LE(6), 4) +
    bytes.toString('hex', 8, 16).toUpperCase()
  );
}

/** The file's name, without the directories of the machine that it was built on. */
export const pdbFileName = (pdb: Pick<PdbIdentity, 'name'>): string => pdb.name.replace(/^.*[\\/]/s, '');

/** Whether a PDB's name, which comes from the guest, can be a file's in a directory of ours. */
export const isUsableName = (name: string): boolean => /^[^/\\\0]+$/.test(name) && name !== '.' && name !== '..';

/** The directory of a symbol store that holds this build's PDB: GUID and age. */
export const storeKey = (pdb: Pick<PdbIdentity, 'guid' | 'age'>): string => `${pdb.guid}${pdb.age.toString(16)}`;

/** Where a symbol store has it, below its root: `name.pdb/GUIDAGE/name.pdb`. */
export const symbolPath = (pdb: PdbIdentity): string => {
  const name = pdbFileName(pdb);
  return `${name}/${storeKey(pdb)}/${name}`;
};
