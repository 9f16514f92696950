// The client of the HTTP API: the bearer token, lists by cursor, and every failure as an ApiError
// whose message can be shown as it is.

const ADMIN = "/admin/v1";
const PAGE_LIMIT = 200;

/** A request that did not succeed. `status` is 0 when no answer came. */
export class ApiError extends Error {
  constructor({ status, code, message }) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Builds a path from parts; each part is escaped. */
export function path(...parts) {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

/** Path of an environment below `/admin/v1`. */
export function environmentPath(project, environment) {
  return path("projects", project, "environments", environment);
}

/** The management API with one token. `onRefused` is told when the token is not accepted. */
export function createApi(token, onRefused = () => {}) {
  async function send(method, target, { body, signal, query } = {}) {
    const headers = { Accept: "application/json", Authorization: `Bearer ${token}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const search = query ? `?${new URLSearchParams(query)}` : "";
    try {
      return await request(ADMIN + target + search, {
        method,
        headers,
        signal,
        cache: "no-store",
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) onRefused(error);
      throw error;
    }
  }

  return {
    get: (target, options) => send("GET", target, options),
    post: (target, body, options) => send("POST", target, { ...options, body }),
    patch: (target, body, options) => send("PATCH", target, { ...options, body }),
    delete: (target, options) => send("DELETE", target, options),

    /** Every item of a list, page after page. */
    async list(target, { signal, query } = {}) {
      const items = [];
      let cursor = null;
      do {
        const page = await send("GET", target, {
          signal,
          query: { ...query, limit: PAGE_LIMIT, ...(cursor === null ? {} : { cursor }) },
        });
        items.push(...page.items);
        cursor = page.next_cursor ?? null;
      } while (cursor !== null);
      return items;
    },
  };
}

/** Path of an environment's flag set for clients. */
export function flagSetPath(clientKey) {
  return `/sdk/v1${path("environments", clientKey, "flags")}`;
}

/** Reads a flag set like any client: without a token, through every cache. */
export function readFlagSet(url, signal) {
  return request(url, { headers: { Accept: "application/json" }, credentials: "omit", signal });
}

async function request(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ status: 0, code: "unreachable", message: "The server cannot be reached." });
  }
  if (!response.ok) throw await problem(response);
  if (response.status === 204) return null;
  return response.json();
}

async function problem(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Not every hop in between answers with JSON.
  }
  const code = body.code ?? `http_${response.status}`;
  const text = body.detail || body.title || `The server answered with status ${response.status}.`;
  const wait = Number(response.headers.get("Retry-After"));
  const message = wait > 0 ? `${sentence(text)} Try again in ${wait} s.` : sentence(text);
  return new ApiError({ status: response.status, code, message });
}

function sentence(text) {
  const start = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}
