//! The connection to a Redis server, and what the server says of itself.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::super::shared::{TIME_LIMIT, unreadable};
use super::LedgerError;
use crate::entropy::{SystemEntropy, random};

/// The one connection, which all operations share and the first that finds it
/// gone makes anew.
pub(super) struct Link {
    client: Client,
    current: Mutex<Option<MultiplexedConnection>>,
}

impl Link {
    pub(super) fn new(client: Client) -> Self {
        Self { client, current: Mutex::default() }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, LedgerError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current {
            return Ok(connection.clone());
        }
        // The limit of `run` holds here too.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let made = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = made.map_err(LedgerError::new)?;
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// Runs something on the connection, which is given up unless an answer
    /// comes that says that it is sound.
    pub(super) async fn run<T>(
        &self,
        operation: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, LedgerError> {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut connection = timeout_at(deadline, self.connection()).await.map_err(LedgerError::new)??;
        let answer = timeout_at(deadline, operation(&mut connection)).await;
        // A primary that became a replica is left, too.
        let is_sound = |err: &RedisError| err.code().is_some_and(|code| code != "READONLY");
        if !answer.as_ref().is_ok_and(|answer| answer.as_ref().map_or_else(is_sound, |_| true)) {
            *self.current.lock().await = None;
        }
        answer.map_err(LedgerError::new)?.map_err(LedgerError::new)
    }

    /// The id of the store, made by the first ledger that connects to it.
    pub(super) async fn instance(&self, prefix: &str) -> Result<[u8; 16], LedgerError> {
        let key = format!("{prefix}:instance");
        let new: [u8; 16] = random(&SystemEntropy);
        let known: String = self
            .run(async |connection| {
                let mut make = redis::cmd("SET");
                let _: redis::Value =
                    make.arg(&key).arg(hex::encode(new)).arg("NX").query_async(connection).await?;
                redis::cmd("GET").arg(&key).query_async(connection).await
            })
            .await?;
        let mut instance = [0; 16];
        hex::decode_to_slice(known, &mut instance).map_err(|_| unreadable("an id"))?;
        Ok(instance)
    }

    /// What the server says of its settings; nothing where it does not say.
    pub(super) async fn settings(&self) -> Result<String, LedgerError> {
        self.run(async |connection| {
            let memory: String = redis::cmd("INFO").arg("memory").query_async(connection).await?;
            let persistence: String = redis::cmd("INFO").arg("persistence").query_async(connection).await?;
            Ok(memory + &persistence)
        })
        .await
    }
}

/// Refuses a server that is set to lose counts, as far as it says.
pub(super) fn check_settings(info: &str) -> Result<(), LedgerError> {
    let get = |key: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(key)?.strip_prefix(':'));
    if get("aof_enabled") == Some("0") {
        return Err(LedgerError::new(
            "a restart would take back what was used, to be sold again: set `appendonly yes`",
        ));
    }
    let evicts = get("maxmemory_policy").is_some_and(|policy| policy.starts_with("allkeys"));
    if evicts && get("maxmemory") != Some("0") {
        return Err(LedgerError::new(
            "counts would be evicted, and sold again: set `maxmemory-policy noeviction`",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_settings;

    #[test]
    fn a_server_that_would_lose_counts_is_refused() {
        let info = |aof: u8, most: u32, policy: &str| {
            format!(
                "# Memory\r\nused_memory:9\r\nmaxmemory:{most}\r\nmaxmemory_human:x\r\nmaxmemory_policy:{policy}\r\n# Persistence\r\nloading:0\r\naof_enabled:{aof}\r\n"
            )
        };
        for (info, is_refused) in [
            (info(1, 0, "noeviction"), false),
            (info(1, 1_000_000, "noeviction"), false),
            (info(1, 1_000_000, "volatile-lru"), false), // no key has a time to live
            (info(1, 1_000_000, "allkeys-lru"), true),
            (info(1, 1_000_000, "allkeys-random"), true),
            (info(1, 0, "allkeys-lru"), false),
            (info(0, 0, "noeviction"), true),
            (String::new(), false),
        ] {
            assert_eq!(check_settings(&info).is_err(), is_refused, "{info}");
        }
    }
}
