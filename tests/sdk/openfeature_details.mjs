// How OpenFeature's SDKs for JavaScript are asked for a flag, and what their answers are in the tests.

const METHODS = {
  boolean: 'getBooleanDetails',
  string: 'getStringDetails',
  integer: 'getNumberDetails',
  float: 'getNumberDetails',
  object: 'getObjectDetails',
};

/**
 * {"flag":"banner","type":"string","default":"x","context":{"targetingKey":"ann"}}; `type` is
 * boolean, string, integer, float or object. The web SDK has one context and ignores this one.
 * The answer: {"value","variant","reason","error","metadata"}
 */
export async function resolve(client, { flag, type, default: fallback, context }) {
  const details = await client[METHODS[type]](flag, fallback, context);
  return {
    value: details.value,
    variant: details.variant ?? null,
    reason: details.reason ?? null,
    error: details.errorCode ?? null,
    metadata: details.flagMetadata,
  };
}
