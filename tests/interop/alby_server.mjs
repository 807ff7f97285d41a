// A server on the helpers of @getalby/lightning-tools: one thing that is paid
// for, and one that is free. Invoices are made by whoever INVOICES names.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import {
  issueL402Macaroon,
  makeL402AuthenticateHeader,
  parseL402Authorization,
  verifyL402Macaroon,
} from "@getalby/lightning-tools";

const secret = "a secret of the test alone";

async function isPaid(authorization) {
  const credential = authorization && parseL402Authorization(authorization);
  if (!credential) return false;
  const { paymentHash } = await verifyL402Macaroon(secret, credential.token);
  const hash = createHash("sha256").update(Buffer.from(credential.preimage, "hex")).digest("hex");
  return hash === paymentHash;
}

async function answer(request, response) {
  if (request.url === "/free" || (await isPaid(request.headers.authorization))) {
    if (request.method === "POST") return request.pipe(response);
    return response.end("served");
  }
  const made = await (await fetch(`${process.env.INVOICES}/21`)).json();
  const token = await issueL402Macaroon(secret, made.paymentHash, { resource: "paid" });
  response.writeHead(402, {
    "www-authenticate": makeL402AuthenticateHeader({ token, invoice: made.invoice }),
  });
  response.end("payment required");
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => response.writeHead(500).end(String(error)));
});
server.listen(0, "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
process.stdin.resume().on("end", () => process.exit(0));
