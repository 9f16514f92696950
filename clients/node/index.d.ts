// The types of src/index.js; README.md says more about each.

/** What a flag holds beside being on or off; `null` when it holds nothing. */
export type FlagValue = string | number | boolean | null;

/** One flag in a flag set. */
export interface Flag {
  readonly enabled: boolean;
  readonly value: FlagValue;
}

/** A place for the last known flags, such as a key in Redis. What it keeps is a text. */
export interface FlagStore {
  /** The text that was saved last; nothing when there is none. */
  load(): string | null | undefined | Promise<string | null | undefined>;
  /** Puts `text` in the place of what is there, as a whole. */
  save(text: string): unknown;
  /** Calls `changed` after another process has saved. Returns a function that ends it. */
  watch?(changed: () => void): (() => void) | void | Promise<(() => void) | void>;
}

/** Where messages go; `console` and most loggers are such. */
export interface FlagLogger {
  info(message: string): unknown;
  warn(message: string): unknown;
  error(message: string): unknown;
}

/** Time, for tests. In milliseconds. */
export interface FlagClock {
  now(): number;
  setTimeout(then: () => void, wait: number): any;
  clearTimeout(timer: any): void;
  /** From 0 to 1, for jitter. */
  random(): number;
}

export interface FlagcastOptions {
  /** The gateway, or the CDN before it. It may have a path. */
  url: string | URL;
  /** The client key of the environment. */
  clientKey: string;
  /** The secret of the webhook endpoint, `whsec_…`; several while it is rotated. */
  secret: string | readonly string[];
  /** The path of a file that keeps the last known flags, or a place of your own. Default: nowhere. */
  store?: string | FlagStore | null;
  /** How often to look without having been told, in seconds, ± 20 %; `0` for never. Default: 300. */
  pollSeconds?: number;
  /** How long one read of the gateway may take. Default: 5. */
  readTimeoutSeconds?: number;
  /** How long a delivery waits for its flags before it is answered 503. Default: 8. */
  applyTimeoutSeconds?: number;
  /** How long `ready` waits at most; `0` for ever. Default: 5. */
  readyTimeoutSeconds?: number;
  /** Called after each change, like a function given to `on`. */
  onChange?: (flags: Flagcast) => unknown;
  /** Default: `console`. */
  logger?: FlagLogger;
  /** Reads in another way than the global `fetch`, such as through a proxy. */
  fetch?: (
    url: string,
    init: { headers: Record<string, string>; signal: AbortSignal; cache: 'default' | 'no-store' },
  ) => Promise<Response>;
  clock?: FlagClock;
}

/** As much of `http.IncomingMessage` as is needed. */
export interface NodeRequest {
  method?: string;
  headers: Record<string, string | string[] | undefined>;
  on(event: string, listener: (...values: any[]) => void): unknown;
}

/** As much of `http.ServerResponse` as is needed. */
export interface NodeResponse {
  writeHead(status: number, headers: Record<string, string | number>): unknown;
  end(body: string): unknown;
}

/** The flags of one environment, as they are now, and the doors for deliveries. */
export interface Flagcast {
  /** Resolves to whether flags are known: soon, or after `readyTimeoutSeconds`. Never rejects. */
  readonly ready: Promise<boolean>;
  /** The revision of the flags; `-1` while none are known. */
  readonly revision: number;
  /** The time of the flags in Unix seconds, which only rises; `0` while none are known. */
  readonly updatedAt: number;
  /** Whether a flag is on; `otherwise` (default: `false`) when it is not known. */
  enabled(flag: string, otherwise?: boolean): boolean;
  /** A flag's value; `otherwise` when it has none or is not known. */
  value(flag: string): FlagValue | undefined;
  value<T extends FlagValue | undefined>(flag: string, otherwise: T): NonNullable<FlagValue> | T;
  /** All flags. */
  all(): Record<string, Flag>;
  /** Calls `listener` after each change, until the function that is returned is called. */
  on(listener: (flags: Flagcast) => unknown): () => void;
  /** Ends everything. The flags stay as they are. */
  close(): void;

  /** Takes deliveries in `node:http`, Express, Connect and alike. Never rejects because of a delivery. */
  handler(request: NodeRequest, response: NodeResponse): Promise<void>;
  /** Takes deliveries as standard requests: Next.js, Hono, Bun, Deno. */
  fetch(request: Request): Promise<Response>;
  /** Takes deliveries in Fastify: `app.register(flags.fastify, { prefix: '/flagcast' })`. */
  fastify(instance: any, options?: unknown): Promise<void>;
}

/** Follows one environment. Throws a `TypeError` when an option is wrong. */
export function flagcast(options: FlagcastOptions): Flagcast;
