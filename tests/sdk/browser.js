// What Flagsmith's JavaScript SDKs take from a browser. Required before them.
'use strict';

globalThis.window = globalThis;
globalThis.EventSource = require('eventsource');
globalThis.localStorage = { getItem: () => null, setItem() {}, removeItem() {} };
