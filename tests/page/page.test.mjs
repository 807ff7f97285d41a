// The page in a real browser: what a person sees, does and gets.
//
// SITE_URL is the address of the server (site.rs), CHROMIUM the browser's
// executable, SHOTS where the screenshots go.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import jsQR from 'jsqr';
import { chromium } from 'playwright-core';
import { PNG } from 'pngjs';

const site = process.env.SITE_URL;
const shots = process.env.SHOTS;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
// For a name that is not loopback, over plain http.
const plain = new URL(site);
plain.hostname = 'shop.test';

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-proxy-server',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--host-resolver-rules=MAP shop.test 127.0.0.1',
    ],
  });
});
after(() => browser?.close());

// Opens a path in a fresh profile. What the browser complains of, and whom it
// asks, is checked when the test ends.
async function open(t, path, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const complaints = [];
  const hosts = new Set();
  page.on('console', (message) => {
    // Chromium says so of every page that is not 2xx.
    const status = /^Failed to load resource: the server responded with a status of (400|402|503) /;
    if (['error', 'warning'].includes(message.type()) && !status.test(message.text())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  context.on('request', (request) => hosts.add(new URL(request.url()).host));
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
    for (const host of hosts) assert.ok([new URL(site).host, plain.host, ''].includes(host), `a request to ${host}`);
  });
  await options.prepare?.(page, context);
  const response = await page.goto(new URL(path, options.origin ?? site).href);
  return { page, context, response };
}

const invoice = (page) => page.locator('#bolt11').textContent();

async function pay(bolt11) {
  const answer = await fetch(`${site}/dev/pay`, { method: 'POST', body: bolt11 });
  assert.equal(answer.status, 200);
  return answer.text();
}

// What was paid for is there, and works as without a gate.
async function isOpen(page) {
  await page.getByRole('heading', { name: 'The paper' }).waitFor({ timeout: 20_000 });
  assert.equal(await page.locator('body').getAttribute('data-ran'), 'yes', 'its script ran');
  const color = await page.locator('h1').evaluate((h1) => getComputedStyle(h1).color);
  assert.equal(color, 'rgb(1, 2, 3)', 'its style holds');
}

async function isAccessible(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run());
  const serious = found.violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.map((n) => n.target) }));
  assert.deepEqual(serious, []);
  assert.ok(found.passes.length > 10, 'it looked');
}

describe('a challenge', () => {
  test('shows what is sold, its offers and their terms', async (t) => {
    const { page, response } = await open(t, '/paper');
    assert.equal(response.status(), 402);
    assert.match(await response.headerValue('www-authenticate'), /^L402 macaroon=/);
    await page.getByRole('heading', { name: "Today's paper", level: 1 }).waitFor();
    const text = await page.locator('main').innerText();
    for (const shown of [
      'Every article of today, on this device.', '210 sat', 'Unlimited for 1 day', 'A month of papers', '2.50 USD',
      'Unlimited for 30 days', '1,000 credits', '2100 sat', '1000 requests within 30 days', 'For the archive too.',
      'This invoice buys it.', 'Waiting for the payment.',
    ]) assert.ok(text.includes(shown), `no "${shown}"`);
    assert.equal(await page.getByRole('link', { name: 'Ask the editor' }).getAttribute('href'), '/editor');
    assert.equal(await page.getByRole('button', { name: /^Card/ }).count(), 1, 'for the offer in dollars alone');
    const link = await page.getByRole('link', { name: 'Open in wallet' }).getAttribute('href');
    assert.equal(link, `lightning:${await invoice(page)}`);
  });

  test('has a QR code that reads as the invoice', async (t) => {
    for (const options of [{}, { colorScheme: 'dark' }, { viewport: { width: 320, height: 600 }, deviceScaleFactor: 2 }]) {
      const { page } = await open(t, '/paper', options);
      const image = PNG.sync.read(await page.getByRole('img', { name: 'QR code of the Lightning invoice' }).screenshot());
      const code = jsQR(new Uint8ClampedArray(image.data), image.width, image.height);
      assert.equal(code?.data, `lightning:${await invoice(page)}`.toUpperCase());
    }
  });

  test('counts down', async (t) => {
    const { page } = await open(t, '/paper');
    assert.equal(await page.getByRole('button', { name: 'Pay with browser wallet' }).isVisible(), false);
    const left = page.getByRole('timer');
    assert.match(await left.textContent(), /^(5:00|4:5\d)$/);
    const first = await left.textContent();
    await page.waitForFunction((first) => document.getElementById('left').textContent !== first, first);
  });

  test('copies the invoice', async (t) => {
    const { page, context } = await open(t, '/paper');
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.getByRole('button', { name: 'Copy invoice' }).click();
    await page.getByRole('button', { name: 'Copied' }).waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await invoice(page));
  });

  test('shows hostile texts and runs nothing of them', async (t) => {
    const { page } = await open(t, '/hostile?%3Cscript%3E=%22%3E%3Cimg%20src=x%3E&a=\'b');
    const title = await page.locator('h1').textContent();
    assert.ok(title.startsWith('</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'));
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.equal(await page.locator('main img, main script, main svg[onload]').count(), 0);
    assert.equal(await page.locator('script').count(), 1);
    await isAccessible(page);
    const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(width[0] <= width[1], 'it does not overflow');
    await page.screenshot({ path: `${shots}/hostile.png`, fullPage: true });
  });

  test('says that it has expired, and gets a new invoice', async (t) => {
    const { page } = await open(t, '/brief/paper');
    const first = await invoice(page);
    await page.getByText('This invoice can no longer be paid.').waitFor({ timeout: 40_000 });
    assert.equal(await page.getByRole('link', { name: 'Open in wallet' }).isVisible(), false);
    await isAccessible(page);
    await page.screenshot({ path: `${shots}/expired.png`, fullPage: true });
    await page.getByRole('link', { name: 'Get a new invoice' }).click();
    await page.waitForFunction((first) => document.getElementById('bolt11')?.textContent !== first, first);
  });

  test('warns where the browser would not keep what is bought', async (t) => {
    const { page } = await open(t, '/paper', { origin: plain.href });
    await page.getByRole('alert').filter({ hasText: 'Do not pay here' }).waitFor();
    assert.equal(await page.getByRole('link', { name: 'Open in wallet' }).isVisible(), false);
  });
});

describe('a payment', () => {
  test('from another device is noticed, and opens the page', async (t) => {
    const { page, context } = await open(t, '/paper?edition=1');
    await pay(await invoice(page));
    await isOpen(page);
    assert.equal(page.url(), `${site}/paper?edition=1`);
    const cookies = await context.cookies();
    assert.equal(cookies.length, 1);
    const { name, path, httpOnly, secure, sameSite } = cookies[0];
    assert.deepEqual(
      { name, path, httpOnly, secure, sameSite },
      { name: '__Secure-l402-paper', path: '/', httpOnly: true, secure: true, sameSite: 'Lax' },
    );
    assert.equal(await page.evaluate(() => document.cookie), '');
    await page.reload();
    await isOpen(page);
  });

  test('of an invoice that was on the page before it was loaded again opens it too', async (t) => {
    const { page } = await open(t, '/paper');
    const first = await invoice(page);
    await page.reload();
    assert.notEqual(await invoice(page), first);
    await pay(first);
    await isOpen(page);
  });

  test('of a wallet in the browser opens the page at once', async (t) => {
    const prepare = (page) => page.addInitScript(() => {
      let enabled = false;
      window.webln = {
        enable: async () => { enabled = true; },
        sendPayment: async (invoice) => {
          if (!enabled) throw new Error('not enabled');
          const answer = await fetch('/dev/pay', { method: 'POST', body: invoice });
          return { preimage: await answer.text() };
        },
      };
    });
    const { page } = await open(t, '/blind/paper', { prepare });
    await page.getByRole('button', { name: 'Pay with browser wallet' }).click();
    await isOpen(page);
  });

  test('that the wallet in the browser refuses can be tried again', async (t) => {
    const prepare = (page) => page.addInitScript(() => {
      window.webln = { enable: async () => {}, sendPayment: async () => { throw new Error('no'); } };
    });
    const { page } = await open(t, '/blind/paper', { prepare });
    const button = page.getByRole('button', { name: 'Pay with browser wallet' });
    await button.click();
    await page.getByRole('status').filter({ hasText: 'The browser wallet did not pay.' }).waitFor();
    assert.equal(await button.isEnabled(), true);
  });

  test('for counted uses is used up, and sold again', async (t) => {
    const { page } = await open(t, '/two');
    assert.ok((await page.locator('main').innerText()).includes('2.50 USD (2500 sat)'));
    await pay(await invoice(page));
    await isOpen(page);
    assert.equal(await page.locator('#left').textContent(), 'Some(1)');
    await page.reload();
    assert.equal(await page.locator('#left').textContent(), 'Some(0)');
    await page.reload();
    await page.getByRole('heading', { name: 'Two pages', level: 1 }).waitFor();
  });

  test('by another method opens the page when the browser comes back', async (t) => {
    const { page, context } = await open(t, '/paper');
    await page.getByRole('button', { name: 'Card: A month of papers' }).click();
    const card = page.getByRole('button', { name: 'Pay 2.50 USD' });
    await card.waitFor();
    const checkout = page.url();
    // Back and reloaded before it is paid: what was begun is not forgotten.
    for (let loads = 0; loads < 4; loads += 1) {
      await page.goto(`${site}/paper`);
      await page.locator('#l402').waitFor();
    }
    await page.goto(checkout);
    await card.click();
    await isOpen(page);
    const [cookie] = await context.cookies();
    assert.ok(cookie.expires > Date.now() / 1000 + 29 * 86_400, 'for a month');
    await page.reload();
    await isOpen(page);
  });

  test('for a file downloads it', async (t) => {
    const { page } = await open(t, '/table.csv');
    const download = page.waitForEvent('download', { timeout: 20_000 });
    await pay(await invoice(page));
    assert.equal(readFileSync(await (await download).path(), 'utf8'), 'a,b\n');
  });
});

describe('without a script', () => {
  const options = { javaScriptEnabled: false };

  test('the preimage opens the page', async (t) => {
    const { page } = await open(t, '/blind/paper', options);
    await page.getByText('Invoice', { exact: true }).click();
    const preimage = await pay(await invoice(page));
    await page.getByLabel('Preimage').fill(` ${preimage.toUpperCase()} `);
    await page.getByRole('button', { name: 'Open the page' }).click();
    await page.getByRole('heading', { name: 'The paper' }).waitFor();
    assert.equal(page.url(), `${site}/blind/paper`);
  });

  test('a preimage that does not fit is told, and can be mended', async (t) => {
    const { page } = await open(t, '/blind/paper', options);
    const preimage = await pay(await invoice(page));
    await page.getByLabel('Preimage').fill('0'.repeat(64));
    await page.getByRole('button', { name: 'Open the page' }).click();
    await page.getByRole('alert').filter({ hasText: 'preimage of another payment' }).waitFor();
    await page.screenshot({ path: `${shots}/rejected.png`, fullPage: true });
    await page.getByLabel('Preimage').fill(preimage);
    await page.getByRole('button', { name: 'Open the page' }).click();
    await page.getByRole('heading', { name: 'The paper' }).waitFor();
  });

  test('nobody is led to a payment that would open nothing', async (t) => {
    const { page } = await open(t, '/paper', options);
    assert.equal(await page.getByText(/^Card/).filter({ visible: true }).count(), 0);
  });

  test('a payment that the server sees opens without a preimage', async (t) => {
    const { page } = await open(t, '/paper', options);
    const bolt11 = await invoice(page);
    await page.getByRole('button', { name: 'Open the page' }).click();
    await page.getByRole('alert').filter({ hasText: 'has not arrived yet' }).waitFor();
    await pay(bolt11);
    // The server asks its backend again after 5 seconds.
    for (let tries = 0; tries < 20 && await page.getByRole('alert').count(); tries += 1) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      await page.getByRole('button', { name: 'Open the page' }).click();
    }
    await page.getByRole('heading', { name: 'The paper' }).waitFor();
  });
});

describe('by keyboard and screen reader', () => {
  test('everything is reached in order, and seen to be', async (t) => {
    const { page } = await open(t, '/paper');
    const reached = [];
    for (let i = 0; i < 7; i += 1) {
      await page.keyboard.press('Tab');
      reached.push(await page.evaluate(() => {
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
        const { textContent, name } = document.activeElement;
        return `${textContent || name} ${outlineStyle} ${outlineWidth}`;
      }));
    }
    assert.deepEqual(reached, [
      'Open in wallet', 'Copy invoice', 'Invoice', 'Card: A month of papers', 'Ask the editor', 'preimage', 'Open the page',
    ].map((name) => `${name} solid 3px`));
  });

  test('keys do what a pointer does', async (t) => {
    const { page } = await open(t, '/blind/paper');
    const preimage = await pay(await invoice(page));
    await page.getByLabel('Preimage').focus();
    await page.keyboard.type(preimage);
    await page.keyboard.press('Enter');
    await isOpen(page);
  });

  test('the payment is announced', async (t) => {
    const { page } = await open(t, '/paper');
    // The element is there before its text changes, or nothing is read out.
    assert.equal(await page.getByRole('status').textContent(), 'Waiting for the payment.');
    await page.evaluate(() => { document.getElementById('form').submit = () => {}; });
    await pay(await invoice(page));
    await page.getByRole('status').filter({ hasText: 'Paid. The page opens.' }).waitFor({ timeout: 20_000 });
  });

  for (const [name, options] of Object.entries({
    light: { colorScheme: 'light' },
    dark: { colorScheme: 'dark' },
    mobile: { colorScheme: 'light', viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true },
    narrow: { colorScheme: 'dark', viewport: { width: 280, height: 653 } },
  })) {
    test(`axe finds nothing (${name})`, async (t) => {
      const { page } = await open(t, '/paper', options);
      await isAccessible(page);
      const width = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(width[0] <= width[1], 'it does not overflow');
      await page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
    });
  }

  test('axe finds nothing where a form is rejected', async (t) => {
    const { page } = await open(t, '/blind/paper');
    await page.getByLabel('Preimage').fill('0'.repeat(64));
    await page.getByRole('button', { name: 'Open the page' }).click();
    await page.getByRole('alert').waitFor();
    await isAccessible(page);
  });
});
