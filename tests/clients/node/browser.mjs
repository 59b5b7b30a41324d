/**
 * examples/browser.html in a real Chromium whose microphone hears a recording.
 *
 *     node browser.mjs BROWSER_FOLDER PAGE URL KEY WAV SCREENSHOT
 *
 * Prints one JSON line: the first draft and the captions that it showed, what it asked of the network, and its
 * errors. The screenshot is of the last moment, also of a failure.
 */
import { chromium } from 'playwright-core';

const [folder, page_url, url, key, wav, screenshot] = process.argv.slice(2);
const PATIENCE_MS = 30_000;

const browser = await chromium.launch({
  executablePath: `${folder}/chromium`,
  env: { ...process.env, LD_LIBRARY_PATH: `${folder}/lib`, FONTCONFIG_FILE: `${folder}/fonts.conf` },
  args: [
    '--no-sandbox', // CI is root
    '--disable-gpu',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--use-fake-ui-for-media-stream', // nobody is there to allow the microphone
    '--use-fake-device-for-media-stream',
    `--use-file-for-fake-audio-capture=${wav}%noloop`,
  ],
});
const page = await browser.newPage({ viewport: { width: 760, height: 420 } });
page.setDefaultTimeout(PATIENCE_MS);
const errors = [];
const requests = [];
page.on('pageerror', (error) => errors.push(String(error)));
page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
page.on('request', (request) => requests.push(request.url()));
page.on('websocket', (socket) => requests.push(socket.url()));

let drafted;
try {
  await page.goto(page_url);
  await page.fill('#url', url);
  await page.fill('#key', key);
  await page.click('#button');
  const draft = await page.waitForFunction(() => document.querySelector('.draft:not(:empty)')?.textContent);
  drafted = await draft.jsonValue();
  await page.locator('#captions p:has(.draft:empty)').waitFor();
  await page.click('#button');
  await page.locator('#status', { hasText: 'Finished.' }).waitFor();
} finally {
  await page.screenshot({ path: screenshot });
}
const captions = await page.locator('#captions p').allTextContents();
console.log(JSON.stringify({ drafted, captions, requests, errors }));
await browser.close();
