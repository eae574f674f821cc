/** A number in a crash dump's list of its pages that is wrong, and what proves it. */
export interface ListFault {
  /** Of the dump's header, or of the one that describes its page map or ranges. */
  field: string;
  /** For people: what it says, and what it should say. */
  found: string;
  expected: string;
  /** What shows that: a noun phrase. */
  evidence: string;
  /** The runs go on over the header's context record. */
  spilled?: true;
}
