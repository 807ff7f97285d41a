"""A FastAPI server gated by a library that is named: one thing that is paid for,
and one that is free. Invoices are made by whoever INVOICES names."""

import base64
import json
import os
import socket
import sys
import threading
import time
from types import SimpleNamespace

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Request, Response

app = FastAPI()


async def make_invoice():
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{os.environ['INVOICES']}/21")).json()


def lightning_toll():
    from lightning_toll import create_toll

    class Wallet:
        async def create_invoice(self, **_):
            made = await make_invoice()
            return SimpleNamespace(invoice=made["invoice"], payment_hash=made["paymentHash"])

    toll = create_toll(wallet=Wallet(), secret="a secret of the test alone", bind_method=True)
    middleware = toll(sats=21)

    async def gate(request: Request):
        return await middleware(request)

    @app.get("/paid")
    async def paid(_=Depends(gate)):
        return Response("served")

    @app.post("/paid")
    async def post(request: Request, _=Depends(gate)):
        return Response(await request.body())


def l402kit():
    from l402kit import l402_required
    from l402kit.types import Invoice

    class Node:
        async def create_invoice(self, amount_sats):
            made, exp = await make_invoice(), int(time.time() * 1000) + 3_600_000
            token = json.dumps({"hash": made["paymentHash"], "exp": exp})
            token = base64.b64encode(token.encode()).decode()
            return Invoice(made["invoice"], made["paymentHash"], token, amount_sats, exp)

    @app.get("/paid")
    @l402_required(price_sats=21, lightning=Node())
    async def paid(request: Request):
        return Response("served")


@app.get("/free")
async def free():
    return Response("served")


{"lightning-toll": lightning_toll, "l402kit": l402kit}[sys.argv[1]]()
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
uvicorn.run(app, fd=listener.fileno(), log_level="warning")
