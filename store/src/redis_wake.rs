//! Wake-ups between nodes over Redis: "there is something new in these shards". Nothing depends on
//! them: without Redis owners find new mail a little later, by polling.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::numbers::ShardNo;

const CHANNEL: &str = "postrider:wake";
/// A wake-up that took longer would find the owner awake already.
const PUBLISH_PATIENCE: Duration = Duration::from_millis(50);
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Hints waiting to go out or to be read; the next ones are dropped.
const WAITING_MAX: usize = 256;

/// The Redis URL is not one.
#[derive(Debug, Error)]
#[error("not a Redis URL")]
pub struct RedisUrlError(#[source] pub(crate) redis::RedisError);

/// Sends and receives wake-ups. Clones share a connection.
#[derive(Debug, Clone)]
pub struct RedisWake {
    client: redis::Client,
    outgoing: mpsc::Sender<Vec<ShardNo>>,
}

impl RedisWake {
    /// Needs no Redis to be there: connections are made when there is something to send, and
    /// again after they broke. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Only for a URL that is none.
    pub fn connect(url: &str) -> Result<Self, RedisUrlError> {
        let client = redis::Client::open(url).map_err(RedisUrlError)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(RECONNECT_PAUSE))
            .set_response_timeout(Some(PUBLISH_PATIENCE));
        let manager = client
            .get_connection_manager_lazy(config)
            .map_err(RedisUrlError)?;
        let (outgoing, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(publish_all(manager, waiting));
        Ok(Self { client, outgoing })
    }

    /// Tells the owners of these shards, if they can be told at once; never waits.
    pub fn publish(&self, shards: &[ShardNo]) {
        // A full channel means that wake-ups for these shards are on their way already, or Redis
        // is gone; both ways this one is not needed.
        let _ = self.outgoing.try_send(shards.to_vec());
    }

    /// Shards that got something new, from now on. Reconnects for as long as the receiver is
    /// kept; what was said meanwhile is lost.
    pub fn subscribe(&self) -> mpsc::Receiver<ShardNo> {
        let (heard, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(listen(self.client.clone(), heard));
        receiver
    }
}

async fn publish_all(mut manager: ConnectionManager, mut waiting: mpsc::Receiver<Vec<ShardNo>>) {
    while let Some(first) = waiting.recv().await {
        let mut shards: BTreeSet<ShardNo> = first.into_iter().collect();
        while let Ok(more) = waiting.try_recv() {
            shards.extend(more);
        }
        let mut command = redis::cmd("PUBLISH");
        command.arg(CHANNEL).arg(to_text(&shards));
        match timeout(PUBLISH_PATIENCE, command.query_async::<i64>(&mut manager)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a wake-up was lost"),
            Err(_) => tracing::debug!("a wake-up was lost: Redis is slow"),
        }
    }
}

async fn listen(client: redis::Client, heard: mpsc::Sender<ShardNo>) {
    while !heard.is_closed() {
        if let Err(error) = listen_once(&client, &heard).await {
            tracing::debug!(%error, "not listening for wake-ups");
        }
        tokio::select! {
            () = heard.closed() => {}
            () = sleep(RECONNECT_PAUSE) => {}
        }
    }
}

async fn listen_once(
    client: &redis::Client,
    heard: &mpsc::Sender<ShardNo>,
) -> redis::RedisResult<()> {
    let mut connection = client.get_async_pubsub().await?;
    connection.subscribe(CHANNEL).await?;
    let mut messages = connection.on_message();
    loop {
        let message = tokio::select! {
            () = heard.closed() => return Ok(()),
            message = messages.next() => message,
        };
        let Some(message) = message else {
            return Ok(());
        };
        for shard in from_text(&message.get_payload::<String>()?) {
            // Full: the reader is behind and will look at everything anyway.
            let _ = heard.try_send(shard);
        }
    }
}

fn to_text(shards: &BTreeSet<ShardNo>) -> String {
    shards
        .iter()
        .map(|shard| shard.0.to_string())
        .collect::<Vec<_>>()
        .join(",")
}

fn from_text(text: &str) -> impl Iterator<Item = ShardNo> {
    text.split(',')
        .filter_map(|number| number.parse().ok().map(ShardNo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_travel_as_text_and_nonsense_is_dropped() {
        let shards = BTreeSet::from([ShardNo(3), ShardNo(12)]);
        assert_eq!(to_text(&shards), "3,12");
        assert_eq!(from_text("3,12").collect::<BTreeSet<_>>(), shards);
        assert_eq!(from_text("3,x,,99999").collect::<Vec<_>>(), [ShardNo(3)]);
    }

    #[tokio::test]
    async fn without_redis_nothing_waits() {
        let wake = RedisWake::connect("redis://127.0.0.1:1").unwrap();
        for _ in 0..1_000 {
            wake.publish(&[ShardNo(1)]);
        }
        assert!(RedisWake::connect("no url").is_err());
    }
}
