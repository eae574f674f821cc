/** Shows how an input is read, for commands that write no dump. */
import type { OpenOptions } from '../../readers/input.ts';
import type { ProgressLine } from './progress.ts';
import { renderSpooling } from './render.ts';

/** @param quiet says nothing of temporary files */
export const watchReading = (
  line: ProgressLine,
  quiet: boolean,
): Pick<OpenOptions, 'onSpool' | 'onSpooled'> & { onSearch: (done: number, total: number) => void } => ({
  onSpool: quiet
    ? undefined
    : (spooling) => {
        line.clear();
        process.stderr.write(renderSpooling(spooling));
      },
  onSpooled: (done, total) => line.update({ phase: 'spool', done, total }),
  onSearch: (done, total) => line.update({ phase: 'search', done, total }),
});
