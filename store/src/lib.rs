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
pub mod command;
pub mod command_match;
pub mod command_run;
mod connections;
pub mod content;
pub mod database;
mod decode;
pub mod dkim;
mod dkim_public;
pub mod domain_check;
pub mod domain_registration;
mod domain_removal;
mod driver_error;
pub mod error;
pub mod event;
pub mod hand_in;
pub mod hints;
pub mod intent;
pub mod key;
pub mod key_admin;
pub mod lease;
pub mod message;
pub mod numbers;
pub mod operator;
mod pace;
mod partitions;
pub mod pool;
pub mod queue;
pub mod rate_limit;
pub mod recipient_domain;
pub mod redis_wake;
pub mod sandbox;
pub mod seal;
pub mod search;
mod search_index;
mod search_key;
pub mod search_log;
mod search_retention;
pub mod search_row;
mod search_span;
mod search_walk;
pub mod sender_domain;
mod server;
pub mod settle;
pub mod source;
pub mod stream;
pub mod suppression;
pub mod transcript;
pub mod webhook;
pub mod webhook_call;
pub mod webhook_health;
pub mod webhook_log;
pub mod webhook_pending;
pub mod webhook_replay;
pub mod webhook_settings;
mod whole;

pub use accept::{
    AcceptObserver, AcceptRequest, Accepted, Acceptor, ContentKind, IdempotencyKey, NewContent,
    NewMessage, NewRecipient, NoObserver, RetentionClass,
};
pub use account::Account;
pub use command::{CommandKind, CommandResult, MessagePlace, NewCommand, QueuedDelivery};
pub use command_match::{CommandFilter, MatchedPage, WaitingStatus, WalkPlace};
pub use command_run::{CommandAnswer, FoundCommand};
pub use content::StoredMessage;
pub use database::{FIXED_CONNECTIONS, Store, StoreOptions};
pub use domain_check::{CheckedDomain, Written};
pub use domain_registration::{DomainKey, NewDomain, RegisteredDomain};
pub use driver_error::{DriverError, LoginFault};
pub use error::StoreError;
pub use event::{NewEvent, StoredEvent};
pub use hand_in::HandIn;
pub use hints::{NoHints, QueueHints, RedisHints};
pub use intent::OpenIntent;
pub use key::{ApiKey, PresentedKey};
pub use key_admin::{KeySummary, KeysOf, NewApiKey};
pub use lease::{DispatcherLease, LeaseRow, Renewed, SearchLease};
pub use message::{MessageView, SentMessage};
pub use numbers::{
    AccountNo, DomainNo, EndpointNo, Epoch, EventFlags, MessageFlags, PoolNo, QueueFlags,
    RecipientDomainNo, ShardNo, StreamNo, micros,
};
pub use operator::{AccountRecord, KeyRecord, SourceRecord};
pub use pace::BatchPace;
pub use pool::{Pool, PoolKind};
pub use queue::{Cursor, DeliveryKey, Fence, QueueDepth, QueueRow, RowRef};
pub use rate_limit::{BucketName, RateLimitStore, SharedBucket, Taken};
pub use redis_wake::RedisWake;
pub use sandbox::{SandboxMessage, SandboxSummary};
pub use seal::{SealError, SealKey, Sealer};
pub use search::{EmailFilter, EmailPage, EmailSummary, SenderFilter};
pub use search_log::{SearchEvent, SearchPage};
pub use search_row::SearchRow;
pub use sender_domain::{OwnReturnPath, SenderDomain};
pub use settle::{Retry, Settlement};
pub use stream::{AmbiguousPolicy, Stream};
pub use suppression::{NewSuppression, Suppression, SuppressionFilter};
pub use transcript::AttemptTranscript;
pub use webhook::{Endpoint, NewEndpoint};
pub use webhook_call::{CallFilter, CallRecord, CallResult};
pub use webhook_log::{LogCursor, LogMessage, LogPage, LogRow};
pub use webhook_pending::PendingCall;
pub use webhook_replay::{NewReplay, Replay, ReplayPiece, ReplayState};
pub use webhook_settings::{DisabledReason, EndpointChange, EndpointSummary};
pub use whole::WholeMessage;
