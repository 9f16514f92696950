// Drives the live page in Chromium: several windows, the browser's own EventSource.
//
// Usage: node page.js
// Reads commands from standard input, one JSON object a line, and answers each with one line,
// {"event":"done"} or {"event":"failed"}:
//   {"do":"open","window":"first","url":"http://…/"}
//   {"do":"sign_in","window":"first","token":"…"}
//   {"do":"choose","window":"first","project":"web","environment":"production"}
//   {"do":"click","window":"first","flag":"dark-mode"}
//   {"do":"expect","window":"first","selector":"…","attribute":"…","value":"…"}
//   {"do":"see","window":"first","selector":"…","text":"…"}
//   {"do":"picture","window":"first","path":"….png"}
// Between them it reports what a page must not do: errors, and requests to other hosts.
'use strict';

const { launch } = require('./chromium.js');
const { obeyLines, report, run } = require('./lines.js');

const PATIENCE_MS = 30_000;

const testid = (name) => `[data-testid="${name}"]`;
const row = (flag) => `${testid('flag-row')}[data-key="${flag}"]`;

const windows = new Map();

async function open(browser, { window, url }) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.on('pageerror', (error) => report({ event: 'page_error', message: String(error) }));
  page.on('console', (message) => {
    if (message.type() === 'error') report({ event: 'page_error', message: message.text() });
  });
  const host = new URL(url).host;
  page.on('request', (request) => {
    const target = new URL(request.url());
    const isForeign = target.protocol.startsWith('http') && target.host !== host;
    if (isForeign) report({ event: 'foreign_request', url: request.url() });
  });
  windows.set(window, page);
  await page.goto(url);
}

async function choose(page, { project, environment }) {
  await page.locator(testid('project-select')).selectOption(project);
  await page.locator(testid('environment-select')).selectOption(environment);
}

async function expectAttribute(page, { selector, attribute, value }) {
  const target = page.locator(`${selector}[${attribute}="${value}"]`);
  await target.first().waitFor({ state: 'attached' });
}

async function see(page, { selector, text }) {
  await page.locator(selector).filter({ hasText: text }).first().waitFor({ state: 'visible' });
}

async function signIn(page, { token }) {
  await page.locator(testid('token-input')).fill(token);
  await page.locator(testid('token-submit')).click();
}

async function obey(browser, command) {
  if (command.do === 'open') return open(browser, command);
  const page = windows.get(command.window);
  switch (command.do) {
    case 'sign_in':
      return signIn(page, command);
    case 'choose':
      return choose(page, command);
    case 'click':
      return page.locator(`${row(command.flag)} ${testid('flag-switch')}`).click();
    case 'expect':
      return expectAttribute(page, command);
    case 'see':
      return see(page, command);
    case 'picture':
      return void (await page.screenshot({ path: command.path }));
    default:
      throw new Error(`unknown command ${command.do}`);
  }
}

async function main() {
  const browser = await launch();
  report({ event: 'ready', version: browser.version() });
  await obeyLines((command) => obey(browser, command));
  await browser.close();
}

run(main);
