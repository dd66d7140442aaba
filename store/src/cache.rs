//! What is remembered of slowly changing rows, for seconds, so that the hot path asks nothing.
//! Bounded in number; another process's change is seen when the time to live is over.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use mail::dkim::Signer;
use mail::domain_name::DomainName;
use mail::handling::PoolRef;
use moka::future::Cache;

use crate::error::StoreError;
use crate::key::PresentedKey;
use crate::numbers::{AccountNo, DomainNo, EndpointNo, PoolNo, RecipientDomainNo, StreamNo};
use crate::pool::Pool;
use crate::sender_domain::SenderDomain;
use crate::stream::Stream;
use crate::webhook::Endpoint;

/// A revoked key, and one of a disabled account, works this long at most.
const KEY_TTL: Duration = Duration::from_secs(5);
const ENDPOINT_TTL: Duration = Duration::from_secs(5);
const CONFIGURATION_TTL: Duration = Duration::from_secs(10);
const SIGNERS_TTL: Duration = Duration::from_secs(60);
const ROWS_MAX: u64 = 10_000;
/// Made-up keys must not push real ones out, so they have a place of their own.
const UNKNOWN_KEYS_MAX: u64 = 10_000;
/// Interned names never change: remembered until there are too many.
const NAMES_MAX: u64 = 200_000;

type Found<K, V> = Cache<K, Option<V>>;

pub(crate) struct Caches {
    pub(crate) keys: Cache<[u8; 32], PresentedKey>,
    pub(crate) unknown_keys: Cache<[u8; 32], ()>,
    pub(crate) streams: Found<(AccountNo, String), Stream>,
    pub(crate) streams_by_no: Found<StreamNo, Stream>,
    pub(crate) sender_domains: Found<(AccountNo, DomainName), SenderDomain>,
    pub(crate) sender_domains_by_no: Found<DomainNo, SenderDomain>,
    pub(crate) signers: Cache<DomainNo, Arc<Vec<Signer>>>,
    pub(crate) pools: Found<PoolNo, Pool>,
    pub(crate) pools_by_ref: Found<PoolRef, Pool>,
    pub(crate) sandbox_pool: Found<(), Pool>,
    pub(crate) endpoints: Found<EndpointNo, Endpoint>,
    pub(crate) recipient_domain_nos: moka::sync::Cache<DomainName, RecipientDomainNo>,
    pub(crate) recipient_domain_names: moka::sync::Cache<RecipientDomainNo, DomainName>,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            keys: cache(KEY_TTL, ROWS_MAX),
            unknown_keys: cache(KEY_TTL, UNKNOWN_KEYS_MAX),
            streams: cache(CONFIGURATION_TTL, ROWS_MAX),
            streams_by_no: cache(CONFIGURATION_TTL, ROWS_MAX),
            sender_domains: cache(CONFIGURATION_TTL, ROWS_MAX),
            sender_domains_by_no: cache(CONFIGURATION_TTL, ROWS_MAX),
            signers: cache(SIGNERS_TTL, ROWS_MAX),
            pools: cache(CONFIGURATION_TTL, ROWS_MAX),
            pools_by_ref: cache(CONFIGURATION_TTL, ROWS_MAX),
            sandbox_pool: cache(CONFIGURATION_TTL, 1),
            endpoints: cache(ENDPOINT_TTL, ROWS_MAX),
            recipient_domain_nos: moka::sync::Cache::new(NAMES_MAX),
            recipient_domain_names: moka::sync::Cache::new(NAMES_MAX),
        }
    }
}

impl std::fmt::Debug for Caches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caches").finish_non_exhaustive()
    }
}

fn cache<K, V>(ttl: Duration, capacity: u64) -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder()
        .time_to_live(ttl)
        .max_capacity(capacity)
        .build()
}

/// The cached value, else what `load` finds; callers of one key share one `load`.
pub(crate) async fn cached<K, V>(
    cache: &Cache<K, V>,
    key: K,
    load: impl Future<Output = Result<V, StoreError>>,
) -> Result<V, StoreError>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    cache
        .try_get_with(key, load)
        .await
        .map_err(Arc::unwrap_or_clone)
}
