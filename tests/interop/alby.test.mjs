// @getalby/lightning-tools pays the quickstart server.
//
// The library keeps no tokens: a paid response carries its credential, and the
// caller hands it back with the next request (`options.credentials`).

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import {
  fetch402,
  Fetch402InterruptedError,
  fetchWithL402,
} from "@getalby/lightning-tools";

const server = process.env.QUICKSTART_URL;
assert.ok(server, "QUICKSTART_URL names the server to pay");

const timeout = 30_000;

/** The wallet: has the development backend pay, and counts what it paid. */
function devWallet() {
  const wallet = {
    payments: 0,
    async payInvoice({ invoice }) {
      const answer = await fetch(`${server}/dev/pay`, {
        method: "POST",
        body: invoice,
      });
      assert.equal(answer.status, 200, `/dev/pay: ${await answer.clone().text()}`);
      const { preimage } = await answer.json();
      assert.match(preimage, /^[0-9a-f]{64}$/);
      wallet.payments += 1;
      return { preimage };
    },
  };
  return wallet;
}

async function assertServed(response) {
  const body = await response.text();
  assert.equal(response.status, 200, body);
  assert.notEqual(body, "");
}

/** The credential with one bit of the token's signature changed. */
function tampered({ header, value }) {
  const [, scheme, token, preimage] = /^(L402) ([^:]+):(.*)$/.exec(value);
  const bytes = Buffer.from(token, "base64");
  bytes[bytes.length - 1] ^= 1;
  return { header, value: `${scheme} ${bytes.toString("base64")}:${preimage}` };
}

test("the free page asks for no payment", { timeout }, async () => {
  const wallet = devWallet();
  const response = await fetchWithL402(`${server}/`, {}, { wallet });
  assert.equal(response.headers.get("www-authenticate"), null);
  assert.equal(response.payment, undefined);
  await assertServed(response);
  assert.equal(wallet.payments, 0);
});

for (const [path, price] of [
  ["/forecast", 21],
  ["/now", 1],
]) {
  test(`${path} is paid once and the token is used again`, { timeout }, async () => {
    const wallet = devWallet();
    const paid = await fetchWithL402(server + path, {}, { wallet });
    await assertServed(paid);
    assert.equal(wallet.payments, 1);
    assert.equal(paid.payment.paid, true);
    assert.equal(paid.payment.amountSat, price);

    const { credentials } = paid.payment;
    assert.equal(credentials.header, "Authorization");
    assert.match(credentials.value, /^L402 [A-Za-z0-9+/]+={0,2}:[0-9a-f]{64}$/);

    const again = await fetchWithL402(server + path, {}, { wallet, credentials });
    await assertServed(again);
    assert.equal(again.payment.paid, false);
    assert.equal(wallet.payments, 1);
  });
}

test("a POST is paid with its body, and its token opens the GET too", { timeout }, async () => {
  const wallet = devWallet();
  const post = () => ({
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ place: "Reykjavik" }),
  });
  const paid = await fetchWithL402(`${server}/forecast`, post(), { wallet });
  await assertServed(paid);
  assert.equal(wallet.payments, 1);

  const { credentials } = paid.payment;
  const options = { wallet, credentials };
  await assertServed(await fetchWithL402(`${server}/forecast`, post(), options));
  await assertServed(await fetchWithL402(`${server}/forecast`, {}, options));
  assert.equal(wallet.payments, 1);
});

test("a changed token is refused with 401 and nothing is paid again", { timeout }, async () => {
  const wallet = devWallet();
  const paid = await fetchWithL402(`${server}/now`, {}, { wallet });
  await assertServed(paid);

  const { credentials } = paid.payment;
  const options = { wallet, credentials: tampered(credentials) };
  const refused = await fetchWithL402(`${server}/now`, {}, options);
  assert.equal(refused.status, 401);
  assert.equal(wallet.payments, 1);

  await assertServed(await fetchWithL402(`${server}/now`, {}, { wallet, credentials }));
  assert.equal(wallet.payments, 1);
});

test("a token of another service gets the 402 back and nothing is paid", { timeout }, async () => {
  const wallet = devWallet();
  const paid = await fetchWithL402(`${server}/now`, {}, { wallet });
  await assertServed(paid);

  const { credentials } = paid.payment;
  const refused = await fetchWithL402(`${server}/forecast`, {}, { wallet, credentials });
  assert.equal(refused.status, 402);
  assert.match(refused.headers.get("www-authenticate"), /^L402 macaroon="/);
  assert.equal(wallet.payments, 1);
});

test("the client's spending limit reads the invoice's amount", { timeout }, async () => {
  const wallet = devWallet();
  await assert.rejects(
    fetch402(`${server}/forecast`, {}, { wallet, maxAmount: 20 }),
    (error) => {
      assert.ok(error instanceof Fetch402InterruptedError);
      assert.match(error.cause.message, /21 sats\) exceeds maxAmount/);
      return true;
    },
  );
  assert.equal(wallet.payments, 0);

  const paid = await fetch402(`${server}/forecast`, {}, { wallet, maxAmount: 21 });
  await assertServed(paid);
  assert.equal(wallet.payments, 1);
});

test("a payment whose answer was lost is resumed, not made again", { timeout }, async () => {
  const wallet = devWallet();
  let preimage;
  const forgetful = {
    async payInvoice(args) {
      ({ preimage } = await wallet.payInvoice(args));
      throw new Error("the wallet's answer was lost");
    },
  };
  let interrupted;
  await assert.rejects(
    fetchWithL402(`${server}/forecast`, {}, { wallet: forgetful }),
    (error) => {
      interrupted = error;
      return error instanceof Fetch402InterruptedError;
    },
  );
  const hash = createHash("sha256").update(Buffer.from(preimage, "hex")).digest("hex");
  assert.equal(interrupted.paymentHash, hash);
  assert.equal(interrupted.amountSat, 21);

  const resume = { pendingPayment: interrupted.pendingPayment, preimage };
  await assertServed(await fetchWithL402(`${server}/forecast`, {}, { wallet, resume }));
  assert.equal(wallet.payments, 1);
});
