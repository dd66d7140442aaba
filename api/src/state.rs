//! What every handler can reach. Made by whoever starts the role; holds no request.

use std::ops::Deref;
use std::sync::Arc;

use service::clock::Clock;
use service::metrics::Metrics;
use service::resolver::Resolver;
use store::{Acceptor, Sealer, Store};

use crate::callers::Callers;
use crate::config::ApiConfig;
use crate::domains::KeyMaker;
use crate::metrics::ApiMetrics;

/// What every handler is given. Each layer of each request has a clone, so that one is a count and
/// nothing more.
#[derive(Clone)]
pub struct AppState(Arc<AppParts>);

impl From<AppParts> for AppState {
    fn from(parts: AppParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for AppState {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.0
    }
}

/// The parts a running HTTP interface is made of.
#[derive(Clone)]
pub struct AppParts {
    /// PostgreSQL and Redis.
    pub store: Store,
    /// The group commit of sends.
    pub acceptor: Acceptor,
    /// Seals secrets before they are stored.
    pub sealer: Arc<Sealer>,
    /// Looks at the records of sending domains.
    pub resolver: Resolver,
    /// Makes their DKIM keys.
    pub key_maker: KeyMaker,
    /// What is remembered of callers: their limits and last uses.
    pub callers: Callers,
    /// The only source of domain time.
    pub clock: Clock,
    /// The operator's decisions.
    pub config: Arc<ApiConfig>,
    /// The numbers of this role.
    pub metrics: ApiMetrics,
    /// The registry that `/metrics` renders.
    pub registry: Arc<Metrics>,
}
