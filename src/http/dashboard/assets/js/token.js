// Where the management token lives: in this tab only (sessionStorage), never in the address bar
// for longer than it takes to read it.

const SLOT = "flagcast.token";

/** The token of this tab. One in the URL (`#token=…`) wins and is removed from the URL. */
export function takeToken() {
  const fromUrl = takeFromUrl();
  if (fromUrl !== null) keepToken(fromUrl);
  return fromUrl ?? stored();
}

/** Remembers the token for this tab. */
export function keepToken(token) {
  try {
    sessionStorage.setItem(SLOT, token);
  } catch {
    // Storage may be switched off; the token then lasts until the page is closed.
  }
}

/** Forgets the token. */
export function dropToken() {
  try {
    sessionStorage.removeItem(SLOT);
  } catch {
    // Nothing was stored.
  }
}

function stored() {
  try {
    return sessionStorage.getItem(SLOT);
  } catch {
    return null;
  }
}

function takeFromUrl() {
  const match = /^#token=([^&]+)/.exec(location.hash);
  if (match === null) return null;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    return decodeURIComponent(match[1]).trim() || null;
  } catch {
    return match[1];
  }
}
