//! PostgreSQL and Redis: every statement and every cache of the platform, one noun a file.
//!
//! Nothing here decides about mail, and nothing here reads a clock: times are parameters, save in
//! `lease.rs` and its statements, where the server's clock is the only one all nodes share.
//! PostgreSQL is the truth; what goes through Redis are hints that may be lost.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accept;
pub mod account;
mod cache;
mod codec;
mod connections;
pub mod content;
pub mod database;
mod decode;
pub mod dkim;
mod dkim_public;
pub mod error;
pub mod event;
pub mod hand_in;
pub mod hints;
pub mod intent;
pub mod key;
pub mod lease;
pub mod message;
pub mod numbers;
mod partitions;
pub mod pool;
pub mod queue;
pub mod recipient_domain;
pub mod redis_wake;
pub mod sandbox;
pub mod seal;
pub mod sender_domain;
mod server;
pub mod settle;
pub mod source;
pub mod stream;
pub mod webhook;
pub mod webhook_log;
pub mod webhook_pending;

pub use accept::{
    AcceptObserver, AcceptRequest, Accepted, Acceptor, ContentKind, IdempotencyKey, NewContent,
    NewMessage, NewRecipient, NoObserver, RetentionClass,
};
pub use account::Account;
pub use content::StoredMessage;
pub use database::{Store, StoreOptions};
pub use error::StoreError;
pub use event::{NewEvent, StoredEvent};
pub use hand_in::HandIn;
pub use hints::{NoHints, QueueHints, RedisHints};
pub use intent::OpenIntent;
pub use key::ApiKey;
pub use lease::{DispatcherLease, LeaseRow, Renewed};
pub use message::MessageView;
pub use numbers::{
    AccountNo, DomainNo, EndpointNo, Epoch, EventFlags, MessageFlags, PoolNo, QueueFlags,
    RecipientDomainNo, ShardNo, StreamNo, micros,
};
pub use pool::{Pool, PoolKind};
pub use queue::{Cursor, DeliveryKey, Fence, QueueDepth, QueueRow, RowRef};
pub use redis_wake::RedisWake;
pub use sandbox::{SandboxMessage, SandboxSummary};
pub use seal::{SealError, SealKey, Sealer};
pub use sender_domain::SenderDomain;
pub use settle::{Retry, Settlement};
pub use stream::{AmbiguousPolicy, Stream};
pub use webhook::{Endpoint, EndpointSummary};
pub use webhook_log::{LogCursor, LogMessage, LogPage, LogRow};
pub use webhook_pending::PendingCall;
