/** Reads guest memory at a virtual address; undefined where it is not present. */
export type ReadVirtual = (address: bigint, length: number) => Buffer | undefined;
