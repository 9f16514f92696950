// A page in TypeScript; `package.test.js` compiles it. What must be refused is marked so.

import { flagcast, type Flag, type Flagcast, type FlagValue } from '@flagcast/browser';

const flags: Flagcast = flagcast({ key: 'mUA6' });
flagcast({
  key: 'mUA6',
  url: new URL('https://flags.example.com'),
  onChange: (changed) => changed.revision.toFixed(),
  storage: sessionStorage,
  timeout: 0,
});
flagcast({ key: 'mUA6', storage: false });

const known: boolean = await flags.ready;
const dark: boolean = flags.enabled('dark-mode') && flags.enabled('dark-mode', true);
const some: FlagValue | undefined = flags.value('banner');
const banner: string | number | boolean = flags.value('banner', 'hello');
const none: FlagValue = flags.value('banner', null);
const all: Record<string, Flag> = flags.all();
const off: () => void = flags.on(({ revision }) => revision.toFixed());
off();
flags.close();
export const used = [known, dark, some, banner, none, all];

// @ts-expect-error A client key is needed.
flagcast({});
// @ts-expect-error There is no such option.
flagcast({ key: 'mUA6', interval: 5 });
// @ts-expect-error A value may be a number.
const text: string = flags.value('banner', 'hello');
// @ts-expect-error The revision is the gateway's.
flags.revision = 7;
// @ts-expect-error Flags are changed at the gateway.
flags.all().banner.enabled = true;
export const refused = text;
