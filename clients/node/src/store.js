// The file that keeps the last known flags, for a start without the gateway and for other processes.
//
// It is replaced as a whole, so that whoever reads it reads one set, and only its owner may read it.

import { promises as files, readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { randomBytes } from 'node:crypto';

import { timersOf } from './clock.js';

/** How often the file is looked at, in milliseconds. */
const LOOK = 1_000;

/** What changes whenever another file takes the place. */
const mark = ({ ino, mtimeNs, size }) => `${ino} ${mtimeNs} ${size}`;
const NOWHERE = 'no file';

/** A store in the file `path`. `loadNow` is for the start: an app has its flags from the first moment. */
export function fileStore(path, clock) {
  let seen = NOWHERE;

  function isMissing(error) {
    if (error.code !== 'ENOENT') throw error;
    seen = NOWHERE;
    return null;
  }

  // First the mark, then the text: what comes in between is seen as a change.
  function loadNow() {
    try {
      seen = mark(statSync(path, { bigint: true }));
      return readFileSync(path, 'utf8');
    } catch (error) {
      return isMissing(error);
    }
  }

  async function load() {
    try {
      seen = mark(await files.stat(path, { bigint: true }));
      return await files.readFile(path, 'utf8');
    } catch (error) {
      return isMissing(error);
    }
  }

  async function save(text) {
    await files.mkdir(dirname(path), { recursive: true });
    // Neither the process nor a count here would do: containers share numbers of processes, and
    // bundlers load a module twice.
    const draft = `${path}.${randomBytes(8).toString('hex')}.tmp`;
    try {
      // Not synced to the disk, which would hold up the app's other files and look-ups of names: a copy
      // that a power cut has spoilt is left aside.
      await files.writeFile(draft, text, { flag: 'wx', mode: 0o600 });
      await files.rename(draft, path);
    } catch (error) {
      await files.rm(draft, { force: true }).catch(() => {});
      throw error;
    }
  }

  return {
    loadNow,
    load,
    save,
    /** Calls `changed` when another file is in the place; returns a function that ends it. */
    watch(changed) {
      const timers = timersOf(clock);
      const look = async () => {
        const now = await files.stat(path, { bigint: true }).then(mark, () => NOWHERE);
        if (now !== seen) {
          seen = now;
          changed();
        }
        timers.after('look', LOOK, look);
      };
      timers.after('look', LOOK, look);
      return timers.end;
    },
  };
}
