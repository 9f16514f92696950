// OpenFeature's web SDK with its OFREP provider, unmodified, as an app uses them: in Node and in a
// browser alike.

import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { resolve } from './openfeature_details.mjs';

const EVENTS = [
  ProviderEvents.Ready,
  ProviderEvents.Error,
  ProviderEvents.Stale,
  ProviderEvents.ConfigurationChanged,
  ProviderEvents.Reconciling,
  ProviderEvents.ContextChanged,
];

const events = [];

/** Waits for the flags of `context`; the answer is an error of the provider, or null. */
async function begin({ url, key, context }) {
  for (const name of EVENTS) {
    OpenFeature.addHandler(name, (details) =>
      events.push({ name, flags: details?.flagsChanged ?? [], message: details?.message ?? null }),
    );
  }
  await OpenFeature.setContext(context);
  const headers = [['Authorization', `Bearer ${key}`]];
  // No polling: what arrives has come by the stream. No cache: every start is a first one.
  const options = { baseUrl: url, headers, cacheMode: 'disabled', pollInterval: 0 };
  try {
    await OpenFeature.setProviderAndWait(new OFREPWebProvider(options));
    return null;
  } catch (error) {
    return { code: error.code ?? null, message: error.message };
  }
}

/**
 * {"do":"begin","url":"http://…","key":"…","context":{"targetingKey":"ann"}}
 * {"do":"resolve","flag":"banner","type":"string","default":"x"}  as `openfeature_details.mjs` says
 * {"do":"resolve_all","users":[{"context":{…},"flags":[{"flag","type","default"}]}]}
 *     for each user a list of answers
 * {"do":"context","context":{…}}   for whom flags are evaluated from now on
 * {"do":"events"}                  what the provider has told so far: [{"name","flags","message"}]
 * {"do":"end"}
 */
export async function obey(command) {
  switch (command.do) {
    case 'begin':
      return begin(command);
    case 'resolve':
      return resolve(OpenFeature.getClient(), command);
    case 'resolve_all': {
      const answers = [];
      const client = OpenFeature.getClient();
      for (const { context, flags } of command.users) {
        await OpenFeature.setContext(context);
        answers.push(await Promise.all(flags.map((flag) => resolve(client, flag))));
      }
      return answers;
    }
    case 'context':
      return OpenFeature.setContext(command.context);
    case 'events':
      return events;
    case 'end':
      return OpenFeature.close();
    default:
      throw new Error(`unknown command ${command.do}`);
  }
}
