// Bodies as bytes, and no more of them than a limit.

/** All bytes of a web stream (or of none); `undefined` when there are more than `limit`. */
export async function readStream(stream, limit) {
  const chunks = [];
  let length = 0;
  for await (const chunk of stream ?? []) {
    length += chunk.length;
    if (length > limit) return undefined; // leaving the loop cancels the stream
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * All bytes of a request of Node; `undefined` when there are more than `limit`. What comes after the limit
 * is thrown away and not cut, so that the answer can still be heard.
 */
export function readMessage(request, limit) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    let length = 0;
    request.on('data', (chunk) => {
      length += chunk.length;
      if (length <= limit) chunks.push(chunk);
      else resolve(undefined);
    });
    request.on('end', () => resolve(Buffer.concat(chunks)));
    request.on('error', reject);
    request.on('close', () => reject(new Error('the sender went away')));
  });
}
