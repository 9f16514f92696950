// A server app in TypeScript; `package.test.js` compiles it. What must be refused is marked so.

import { flagcast, type Flag, type Flagcast, type FlagStore, type FlagValue } from '@flagcast/node';

const own = { url: 'https://flags.example.com', clientKey: 'mUA6', secret: 'whsec_' };
const flags: Flagcast = flagcast(own);
const store: FlagStore = { load: async () => null, save: async (text) => text.length };
flagcast({
  ...own,
  url: new URL(own.url),
  secret: ['whsec_', 'whsec_'],
  store,
  pollSeconds: 0,
  readTimeoutSeconds: 1,
  applyTimeoutSeconds: 2,
  readyTimeoutSeconds: 3,
  onChange: (changed) => changed.revision.toFixed(),
  logger: console,
  fetch,
});
flagcast({ ...own, store: '/var/lib/app/flags.json', onChange: async () => {} });

const known: boolean = await flags.ready;
const dark: boolean = flags.enabled('dark-mode') && flags.enabled('dark-mode', true);
const some: FlagValue | undefined = flags.value('banner');
const banner: string | number | boolean = flags.value('banner', 'hello');
const all: Record<string, Flag> = flags.all();
const off: () => void = flags.on(({ updatedAt }) => updatedAt.toFixed());
off();
flags.close();
export const used = [known, dark, some, banner, all];

export const POST: (request: Request) => Promise<Response> = flags.fetch;
declare const request: { method?: string; headers: Record<string, string | string[] | undefined>; on(): unknown };
declare const response: { writeHead(status: number, headers?: object): unknown; end(body?: unknown): unknown };
export const answered: Promise<void> = flags.handler(request, response);

// @ts-expect-error A secret is needed.
flagcast({ url: own.url, clientKey: own.clientKey });
// @ts-expect-error There is no such option.
flagcast({ ...own, client_key: 'mUA6' });
// @ts-expect-error A store needs a way to save.
flagcast({ ...own, store: { load: () => null } });
// @ts-expect-error A value may be a number.
const text: string = flags.value('banner', 'hello');
// @ts-expect-error The revision is the gateway's.
flags.revision = 7;
// @ts-expect-error Flags are changed at the gateway.
flags.all().banner.enabled = true;
export const refused = text;
