/** A register to be shown. */
export interface NamedRegister {
  name: string;
  value: bigint;
  /** Its width. */
  bits: number;
}
