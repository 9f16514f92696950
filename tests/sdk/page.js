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
//   {"do":"press","window":"first","selector":"…"}         a button, by mouse
//   {"do":"type","window":"first","selector":"…","key":"Enter"}  a key, where the focus is put first
//   {"do":"fill","window":"first","selector":"…","text":"…"}
//   {"do":"select","window":"first","selector":"…","value":"…"}
//   {"do":"read","window":"first","selector":"…"}          answers with its text
//   {"do":"vanish","window":"first","selector":"…"}        waits until nothing visible matches
//   {"do":"count","window":"first","selector":"…"}         answers with how many there are now
//   {"do":"title","window":"first"}                        answers with the title of the page
//   {"do":"resize","window":"first","width":400,"height":800}  answers with the width of the content
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

async function resize(page, { width, height }) {
  await page.setViewportSize({ width, height });
  return page.evaluate(() => document.documentElement.scrollWidth);
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
    case 'press':
      return page.locator(command.selector).click();
    case 'type':
      return page.locator(command.selector).press(command.key);
    case 'fill':
      return page.locator(command.selector).fill(command.text);
    case 'select':
      return void (await page.locator(command.selector).selectOption(command.value));
    case 'read':
      return page.locator(command.selector).innerText();
    case 'vanish':
      return page.locator(`${command.selector}:visible`).first().waitFor({ state: 'detached' });
    case 'title':
      return page.title();
    case 'count':
      return page.locator(command.selector).count();
    case 'resize':
      return resize(page, command);
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
