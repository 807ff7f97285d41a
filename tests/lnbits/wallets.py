"""Makes the wallets of a fresh LNbits, and prints where they are as lines
of shell. Takes the server's address, and waits until it answers."""

import json
import secrets
import sys
import time
import urllib.error
import urllib.request

BASE = sys.argv[1]
# Loopback is reached directly, not by a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(method, path, body, **headers):
    request = urllib.request.Request(
        BASE + path,
        method=method,
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", **headers},
    )
    with OPENER.open(request, timeout=30) as response:
        return json.load(response)


def wait_until_ready():
    for _ in range(600):  # two minutes
        try:
            with OPENER.open(BASE + "/api/v1/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit("LNbits did not start")


wait_until_ready()
password = secrets.token_hex(16)
operator = call(
    "PUT",
    "/api/v1/auth/first_install",
    {"username": "operator", "password": password, "password_repeat": password},
)
seller = call("POST", "/api/v1/account", {"name": "seller"})
payer = call("POST", "/api/v1/account", {"name": "payer"})
spender = call("POST", "/api/v1/account", {"name": "spender"})
for wallet in (payer, spender):
    call(
        "PUT",
        "/users/api/v1/balance",
        {"id": wallet["id"], "amount": 1_000_000},
        authorization=f"Bearer {operator['access_token']}",
    )
host = BASE.removeprefix("http://")
print(f"L402_TEST_LNBITS={BASE}")
print(f"L402_TEST_LNBITS_SELLER={seller['inkey']}")
print(f"L402_TEST_LNBITS_PAYER={payer['adminkey']}")
print(f"L402_TEST_LNBITS_SPENDER={spender['adminkey']}")
print(f"L402_TEST_LNBITS_ADDRESS={seller['lightning_address']}@{host}")
