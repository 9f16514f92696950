// The doors of the receiver: Node's `(request, response)`, the standard `Request` and `Response`, and a
// Fastify plugin. They get the bytes of the body, and write what the receiver answers.

import { BODY_LIMIT, refusal, tooLong } from './receiver.js';
import { readMessage, readStream } from './bytes.js';
import { told } from './reads.js';

const notPosted = () => refusal(405, 'deliveries are POSTed', { allow: 'POST' });

const CONSUMED =
  'the body was read before the receiver could verify it: mount the receiver before body parsers such as express.json()';

const cutOff = () => refusal(400, 'the body did not come to its end');

const isTooLong = (length) => Number(length) > BODY_LIMIT;

/** The body as bytes that somebody has put aside before a parser: `rawBody`, or what `express.raw` leaves. */
function setAside(request) {
  for (const bytes of [request.rawBody, request.body])
    if (bytes instanceof Uint8Array) return Buffer.from(bytes);
  return undefined;
}

/** All doors of one receiver. */
export function handlers({ receive, log }) {
  function consumed() {
    log.error(CONSUMED);
    return refusal(500, CONSUMED);
  }

  /** Answers with what `work` gives; an error here must not become one of the app. */
  async function safely(work) {
    try {
      return await work();
    } catch (error) {
      log.error(`a delivery failed: ${told(error)}`);
      return refusal(500, 'the receiver failed; its log says why');
    }
  }

  async function receiveMessage(request) {
    if (request.method !== 'POST') return notPosted();
    if (isTooLong(request.headers['content-length'])) return tooLong();
    let body = setAside(request);
    if (!body) {
      if (request.readableDidRead || request.readableEnded) return consumed();
      body = await readMessage(request, BODY_LIMIT).catch(() => null);
      if (body === null) return cutOff();
    }
    if (!body || isTooLong(body.length)) return tooLong();
    return receive((name) => request.headers[name], body);
  }

  async function handler(request, response) {
    if (typeof request?.on !== 'function' || typeof response?.writeHead !== 'function')
      throw new TypeError('`handler` takes the request and the response of node:http; see README.md');
    const { status, headers, body } = await safely(() => receiveMessage(request));
    if (response.headersSent || response.destroyed) return;
    // Who sends too much may still be sending: the connection is of no more use.
    const last = status === 413 && request.httpVersionMajor < 2 ? { connection: 'close' } : {};
    response.writeHead(status, { ...headers, ...last, 'content-length': Buffer.byteLength(body) });
    response.end(body);
  }

  async function receiveRequest(request) {
    if (request.method !== 'POST') return notPosted();
    if (isTooLong(request.headers.get('content-length'))) return tooLong();
    if (request.bodyUsed) return consumed();
    const body = await readStream(request.body, BODY_LIMIT).catch(() => null);
    if (body === null) return cutOff();
    if (!body) return tooLong();
    return receive((name) => request.headers.get(name), body);
  }

  async function fetch(request) {
    const { status, headers, body } = await safely(() => receiveRequest(request));
    return new Response(body, { status, headers });
  }

  /** In a scope of its own, where Fastify leaves bodies alone. */
  async function fastify(instance) {
    instance.removeAllContentTypeParsers();
    instance.addContentTypeParser('*', (_request, _payload, done) => done(null));
    instance.all('/', (request, reply) => {
      reply.hijack();
      return handler(request.raw, reply.raw);
    });
  }

  return { handler, fetch, fastify };
}
