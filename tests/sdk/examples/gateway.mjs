import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** Starts a gateway of its own on a free port; resolves to its URL and a way to end it. */
export async function serve(fixture = new URL('flags.json', import.meta.url)) {
  const program = process.env.FLAGCAST ?? 'flagcast';
  const gateway = spawn(program, ['serve', '--fixture', fileURLToPath(fixture)], {
    env: {
      ...process.env,
      FLAGCAST_SERVER__LISTEN: '127.0.0.1:0',
      FLAGCAST_SERVER__OPS_LISTEN: '127.0.0.1:0',
    },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  for await (const line of createInterface({ input: gateway.stdout })) {
    const url = line.match(/^ {2}URL: +(\S+)/)?.[1];
    if (url) return { url, stop: () => gateway.kill() };
  }
  throw new Error('the gateway ended before it listened');
}
