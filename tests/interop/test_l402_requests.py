"""l402-requests pays the quickstart server.

The client keeps tokens by host and the first two path segments, whatever the
port and the method, so every test has a client, and so a cache, of its own.
"""

import asyncio
import base64
import os
import re
import sys
import unittest

import httpx
from l402_requests import (
    AsyncL402Client,
    BudgetController,
    BudgetExceededError,
    CredentialCache,
    L402Client,
    WalletBase,
)

SERVER = os.environ["QUICKSTART_URL"]
HOST = httpx.URL(SERVER).host

# What one request of the client looked like: with a credential or without, and
# the status it got.
BARE_402 = (False, 402)
SENT_200 = (True, 200)
SENT_401 = (True, 401)
SENT_402 = (True, 402)


class DevWallet(WalletBase):
    """Has the development backend pay, and counts what it paid."""

    def __init__(self):
        self.payments = 0

    async def pay_invoice(self, bolt11):
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.post(f"{SERVER}/dev/pay", content=bolt11)
        if answer.status_code != 200:
            raise RuntimeError(f"/dev/pay: {answer.status_code} {answer.text}")
        preimage = answer.json()["preimage"]
        if not re.fullmatch("[0-9a-f]{64}", preimage):
            raise RuntimeError(f"not a preimage: {preimage!r}")
        self.payments += 1
        return preimage


def tampered(token):
    """The token with one bit of its signature changed."""
    data = bytearray(base64.b64decode(token, validate=True))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


class L402Requests(unittest.TestCase):
    def setUp(self):
        self.wallet = DevWallet()
        self.client = self.new_client()

    def new_client(self, **options):
        self.exchanges = []
        return L402Client(
            wallet=self.wallet,
            timeout=10,
            event_hooks={"response": [self.note]},
            **options,
        )

    def new_client_holding(self, path, macaroon, preimage):
        """A client that has this credential for `path` in its cache.

        The credential is put in first: the client leaves an empty cache that
        it is given unused, and makes one of its own.
        """
        cache = CredentialCache()
        cache.put(HOST, path, macaroon, preimage)
        return self.new_client(credential_cache=cache)

    def note(self, response):
        sent = "authorization" in response.request.headers
        self.exchanges.append((sent, response.status_code))

    def assert_served(self, response):
        self.assertEqual(response.status_code, 200, response.text)
        self.assertNotEqual(response.text, "")

    def assert_paid(self, payments, sats):
        """The wallet's count, and what the client itself says that it spent."""
        self.assertEqual(self.wallet.payments, payments)
        self.assertEqual(self.client.spending_log.total_spent(), sats)

    def test_the_free_page_asks_for_no_payment(self):
        self.assert_served(self.client.get(f"{SERVER}/"))
        self.assert_paid(0, 0)

    def test_forecast_is_paid_once_and_the_token_is_used_again(self):
        self.assert_served(self.client.get(f"{SERVER}/forecast"))
        self.assert_paid(1, 21)
        self.assert_served(self.client.get(f"{SERVER}/forecast"))
        self.assert_paid(1, 21)
        self.assertEqual(self.exchanges, [BARE_402, SENT_200, SENT_200])

    def test_now_is_paid_once_and_the_token_is_used_again(self):
        self.assert_served(self.client.get(f"{SERVER}/now"))
        self.assert_paid(1, 1)
        self.assert_served(self.client.get(f"{SERVER}/now"))
        self.assert_paid(1, 1)
        self.assertEqual(self.exchanges, [BARE_402, SENT_200, SENT_200])

    def test_a_post_is_paid_with_its_body_and_its_token_opens_the_get_too(self):
        body = {"place": "Reykjavik"}
        self.assert_served(self.client.post(f"{SERVER}/forecast", json=body))
        self.assert_paid(1, 21)
        self.assert_served(self.client.post(f"{SERVER}/forecast", json=body))
        self.assert_served(self.client.get(f"{SERVER}/forecast"))
        self.assert_paid(1, 21)
        self.assertEqual(self.exchanges, [BARE_402, SENT_200, SENT_200, SENT_200])

    def test_a_changed_token_is_refused_with_401_and_nothing_is_paid_again(self):
        self.assert_served(self.client.get(f"{SERVER}/now"))
        paid = self.client.spending_log.records[-1]

        self.client = self.new_client_holding(
            "/now", tampered(paid.macaroon), paid.preimage
        )
        for _ in range(2):  # the client keeps a token that got a 401
            self.assertEqual(self.client.get(f"{SERVER}/now").status_code, 401)
        self.assertEqual(self.exchanges, [SENT_401, SENT_401])

        self.client = self.new_client_holding("/now", paid.macaroon, paid.preimage)
        self.assert_served(self.client.get(f"{SERVER}/now"))
        self.assertEqual(self.exchanges, [SENT_200])
        self.assertEqual(self.wallet.payments, 1)

    def test_a_token_of_another_service_gets_a_402_and_one_payment_mends_it(self):
        self.assert_served(self.client.get(f"{SERVER}/now"))
        paid = self.client.spending_log.records[-1]

        self.client = self.new_client_holding(
            "/forecast", paid.macaroon, paid.preimage
        )
        self.assert_served(self.client.get(f"{SERVER}/forecast"))
        self.assert_served(self.client.get(f"{SERVER}/forecast"))
        self.assertEqual(self.exchanges, [SENT_402, SENT_200, SENT_200])
        self.assert_paid(2, 21)

    def test_the_clients_budget_reads_the_invoices_amount(self):
        self.client = self.new_client(budget=BudgetController(max_sats_per_request=20))
        with self.assertRaises(BudgetExceededError):
            self.client.get(f"{SERVER}/forecast")
        self.assert_paid(0, 0)
        self.assert_served(self.client.get(f"{SERVER}/now"))
        self.assert_paid(1, 1)

    def test_the_async_client_pays_once_and_uses_the_token_again(self):
        async def twice():
            async with AsyncL402Client(wallet=self.wallet, timeout=10) as client:
                self.client = client
                self.assert_served(await client.get(f"{SERVER}/forecast"))
                self.assert_served(await client.get(f"{SERVER}/forecast"))

        asyncio.run(twice())
        self.assert_paid(1, 21)


def main():
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(L402Requests)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    failed = len({test.id() for test, _ in result.failures + result.errors})
    skipped = len(result.skipped)
    print(f"# pass {result.testsRun - failed - skipped}")
    print(f"# fail {failed}")
    print(f"# skipped {skipped}")
    return 0 if result.wasSuccessful() and not skipped else 1


if __name__ == "__main__":
    sys.exit(main())
