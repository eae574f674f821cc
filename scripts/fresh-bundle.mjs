// vitest's global setup: builds what is missing or stale before any test runs the command, also when vitest is
// started directly.
import { ensureBuilt } from './setup.mjs';

export default ensureBuilt;
