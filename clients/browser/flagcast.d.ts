// The types of flagcast.js; README.md says more about each.

/** What a flag holds beside being on or off; `null` when it holds nothing. */
export type FlagValue = string | number | boolean | null;

/** One flag in a flag set. */
export interface Flag {
  readonly enabled: boolean;
  readonly value: FlagValue;
}

/** Where the last known flags are kept; `localStorage` and `sessionStorage` are such. */
export interface FlagStorage {
  getItem(name: string): string | null;
  setItem(name: string, value: string): void;
}

export interface FlagcastOptions {
  /** The client key of the environment. */
  key: string;
  /** The gateway, or what stands before it. Default: the origin that served `flagcast.js`. */
  url?: string | URL;
  /** Called after each change, like a function given to `on`. */
  onChange?: (flags: Flagcast) => void;
  /** Where the last known flags are kept; `false` for nowhere. Default: `localStorage`. */
  storage?: FlagStorage | boolean;
  /** How long `ready` waits at most, in milliseconds; `0` for ever. Default: 5000. */
  timeout?: number;
}

/** The flags of one environment, as they are now. */
export interface Flagcast {
  /** Resolves to whether flags are known: soon, or after `timeout`. Never rejects. */
  readonly ready: Promise<boolean>;
  /** The revision of the flags; `-1` while none are known. */
  readonly revision: number;
  /** Whether a flag is on; `otherwise` (default: `false`) when it is not known. */
  enabled(flag: string, otherwise?: boolean): boolean;
  /** A flag's value; `otherwise` when it has none or is not known. */
  value(flag: string): FlagValue | undefined;
  value<T extends FlagValue | undefined>(flag: string, otherwise: T): NonNullable<FlagValue> | T;
  /** All flags. */
  all(): Record<string, Flag>;
  /** Calls `listener` after each change, until the function that is returned is called. */
  on(listener: (flags: Flagcast) => void): () => void;
  /** Ends everything. The flags stay as they are. */
  close(): void;
}

export function flagcast(options: FlagcastOptions): Flagcast;
