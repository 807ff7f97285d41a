//! The chain, by the JSON-RPC calls of Bitcoin Core that an LDK node makes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use ldk_node::bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::chain::{Chain, Waiting};

/// Serves the chain on a free port of loopback.
pub(crate) fn serve(chain: &Arc<Chain>, runtime: &Runtime) -> SocketAddr {
    let app = Router::new().route("/", post(call)).with_state(chain.clone());
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    runtime.spawn(async move { axum::serve(listener, app).await });
    address
}

async fn call(State(chain): State<Arc<Chain>>, Json(call): Json<Value>) -> Json<Value> {
    let method = call["method"].as_str().unwrap_or_default();
    let (result, error) = match answer(&chain, method, &call["params"]) {
        Ok(result) => (result, Value::Null),
        // A status of 200, since the node asks twice where it is another.
        Err((code, message)) => (Value::Null, json!({ "code": code, "message": message })),
    };
    Json(json!({ "result": result, "error": error, "id": call["id"] }))
}

type RpcError = (i32, &'static str);

const NOT_FOUND: RpcError = (-5, "not found");
const BAD_PARAMETER: RpcError = (-8, "bad parameter");

fn answer(chain: &Chain, method: &str, params: &Value) -> Result<Value, RpcError> {
    let mut state = chain.state();
    let text = params[0].as_str().unwrap_or_default();
    let block = || state.block(text.parse().map_err(|_| BAD_PARAMETER)?).ok_or(NOT_FOUND);
    let waiting = || -> Result<&Waiting, RpcError> {
        state.mempool.iter().find(|waiting| waiting.txid.to_string() == text).ok_or(NOT_FOUND)
    };
    Ok(match method {
        "getblockchaininfo" => {
            json!({ "bestblockhash": state.blocks[state.tip()].block_hash(), "blocks": state.tip() })
        }
        "getblockheader" => {
            let (block, height, work) = block()?;
            let header = block.header;
            let mut answer = json!({
                "version": header.version.to_consensus(),
                "merkleroot": header.merkle_root,
                "time": header.time,
                "nonce": header.nonce,
                "bits": format!("{:08x}", header.bits.to_consensus()),
                "chainwork": format!("{work:064x}"),
                "height": height,
            });
            if height > 0 {
                answer["previousblockhash"] = json!(header.prev_blockhash);
            }
            answer
        }
        "getblock" => json!(serialize_hex(block()?.0)),
        "getrawmempool" => state.mempool.iter().map(|waiting| json!(waiting.txid)).collect(),
        "getmempoolentry" => {
            let waiting = waiting()?;
            json!({ "time": waiting.time, "height": waiting.height })
        }
        "getrawtransaction" => json!(serialize_hex(&waiting()?.transaction)),
        // In BTC per 1,000 virtual bytes.
        "estimatesmartfee" => json!({ "feerate": 0.000_02 }),
        "getmempoolinfo" => json!({ "mempoolminfee": 0.000_01 }),
        "sendrawtransaction" => {
            let transaction = deserialize_hex(text).map_err(|_| (-22, "TX decode failed"))?;
            json!(state.submit(transaction).map_err(|reason| (-26, reason))?)
        }
        _ => return Err((-32601, "method not found")),
    })
}
