//! Everything the parts of one MTA node share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use mail::ids::NodeId;
use mail::retry::StreamClass;
use rustls::ClientConfig;
use service::clock::Clock;
use service::metrics::Metrics;
use service::shutdown::Shutdown;
use store::{AccountNo, Epoch, QueueRow, RedisWake, Sealer, ShardNo, Store, StoredMessage};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::MtaError;
use crate::config::{EgressSource, MtaConfig};
use crate::delivery::{Contents, SilentHosts};
use crate::journal::{Journal, Replayed};
use crate::lanes::{Memory, Paths, Surplus};
use crate::metrics::MtaMetrics;
use crate::queue::{Ambiguity, Commands, Gate, Ownership, Reader, Settler};
use crate::routing::{Route, Router};
use crate::smtp::{TlsMode, opportunistic_client_config, webpki_client_config};
use crate::state_dir::StateDir;
use crate::workers::Queues;

/// Outcomes that PostgreSQL refuses: with so many something is wrong with the schema, and sending
/// more would only make it worse.
const REFUSED_MAX: usize = 100;

/// What a node is given.
#[derive(Debug)]
pub struct Dependencies {
    /// PostgreSQL.
    pub store: Store,
    /// Opens DKIM keys.
    pub sealer: Arc<Sealer>,
    /// Domain time.
    pub clock: Clock,
    /// Where the node's instruments are registered.
    pub metrics: Arc<Metrics>,
    /// Asks the node to stop.
    pub shutdown: Shutdown,
    /// Wake-up hints of other processes.
    pub wake: Option<RedisWake>,
    /// Rung when events were committed: somebody in this process may read the log.
    pub events_committed: Arc<Notify>,
}

/// One MTA node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: MtaConfig,
    pub(crate) store: Store,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) clock: Clock,
    pub(crate) metrics: MtaMetrics,
    /// No new work.
    pub(crate) shutdown: Shutdown,
    /// No waiting for PostgreSQL any more either.
    pub(crate) killed: CancellationToken,
    /// Sessions and routings under way.
    pub(crate) work: TaskTracker,
    pub(crate) state_dir: StateDir,
    pub(crate) journal: Journal,
    pub(crate) ownership: Ownership,
    pub(crate) memory: Memory,
    pub(crate) paths: Paths,
    pub(crate) reader: Reader,
    pub(crate) ambiguity: Ambiguity,
    pub(crate) gate: Gate,
    pub(crate) commands: Commands,
    pub(crate) settler: Settler,
    pub(crate) contents: Contents,
    pub(crate) silent_hosts: SilentHosts,
    pub(crate) router: Router,
    pub(crate) sandbox_route: Option<Arc<Route>>,
    /// Leases lost to others while something of theirs may still be handed in.
    pub(crate) lost: Mutex<Vec<(ShardNo, Epoch)>>,
    pub(crate) connections: Semaphore,
    /// Surplus of accounts that hold too much of the memory.
    pub(crate) surplus: Mutex<Surplus<AccountNo>>,
    /// Held by whoever reads the queue.
    pub(crate) reading: AsyncMutex<()>,
    pub(crate) signatures: Semaphore,
    pub(crate) events_committed: Arc<Notify>,
    sources: Vec<Arc<EgressSource>>,
    opportunistic: Arc<ClientConfig>,
    verified: Arc<ClientConfig>,
}

impl Node {
    pub(crate) fn open(
        config: MtaConfig,
        given: Dependencies,
    ) -> Result<(Arc<Self>, Queues), MtaError> {
        let state_dir = StateDir::open(&config.state_dir, given.clock.now(), rand::random())?;
        let (journal, replayed) = Journal::open(&state_dir.journal_dir(), config.journal.clone())?;
        let (gate, intents) = Gate::new();
        let (settler, outcomes) = Settler::new();
        let (contents, fetches) = Contents::new();
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let sources: Vec<_> = config.sources.iter().cloned().map(Arc::new).collect();
        if sources.is_empty() {
            return Err(MtaError::NoSource);
        }
        let node = Self {
            ownership: Ownership::new(state_dir.node_id(), &config),
            paths: Paths::new(config.limits.clone()),
            router: Router::new(config.routing.clone())?,
            sandbox_route: config.sandbox.map(sandbox_route),
            metrics: MtaMetrics::new(&given.metrics)?,
            connections: Semaphore::new(config.limits.connections),
            surplus: Mutex::default(),
            reading: AsyncMutex::new(()),
            signatures: Semaphore::new(cores),
            opportunistic: opportunistic_client_config()?,
            verified: webpki_client_config()?,
            store: given.store,
            sealer: given.sealer,
            clock: given.clock,
            shutdown: given.shutdown,
            killed: CancellationToken::new(),
            events_committed: given.events_committed,
            work: TaskTracker::new(),
            memory: Memory::default(),
            reader: Reader::default(),
            ambiguity: Ambiguity::default(),
            commands: Commands::default(),
            silent_hosts: SilentHosts::default(),
            lost: Mutex::default(),
            config,
            state_dir,
            journal,
            gate,
            settler,
            contents,
            sources,
        };
        let queues = Queues {
            intents: AsyncMutex::new(intents),
            outcomes: AsyncMutex::new(outcomes),
            fetches: AsyncMutex::new(fetches),
            replayed,
            wake: given.wake,
        };
        Ok((Arc::new(node), queues))
    }

    pub(crate) fn id(&self) -> NodeId {
        self.ownership.id()
    }

    /// The source of a delivery: the same over its attempts, because greylisting remembers it.
    pub(crate) fn source_of(&self, row: &QueueRow) -> &Arc<EgressSource> {
        let (_, low) = row.key.message.uuid().as_u64_pair();
        let place = usize::try_from((low >> 10) % self.sources.len() as u64).unwrap_or_default();
        &self.sources[place]
    }

    pub(crate) fn tls_mode(&self, verified: bool) -> TlsMode {
        if verified {
            TlsMode::Required(self.verified.clone())
        } else {
            TlsMode::Opportunistic(self.opportunistic.clone())
        }
    }

    /// Why no outcome could be kept, if so: then no final dot may be sent.
    pub(crate) fn cannot_keep_outcomes(&self) -> Option<&'static str> {
        if !self.journal.has_room() {
            return Some("the journal cannot be written (is its disk full?)");
        }
        if self.settler.refused() > REFUSED_MAX {
            return Some("PostgreSQL refuses outcomes (is the schema that of this version?)");
        }
        (self.settler.unsettled() > self.config.limits.unsettled)
            .then_some("too many outcomes wait for PostgreSQL")
    }
}

fn sandbox_route(address: SocketAddr) -> Arc<Route> {
    Arc::new(Route::to_address(address))
}

/// What an acceptor in the same process can know and tell: which shards are read here, and which
/// rows were just committed to them.
#[derive(Debug, Clone)]
pub struct MtaHints {
    node: Arc<Node>,
    handoff: mpsc::Sender<Vec<QueueRow>>,
}

impl MtaHints {
    pub(crate) fn new(node: Arc<Node>, handoff: mpsc::Sender<Vec<QueueRow>>) -> Self {
        Self { node, handoff }
    }
}

impl store::QueueHints for MtaHints {
    fn preferred(&self, class: StreamClass) -> Vec<ShardNo> {
        self.node.ownership.preferred(class)
    }

    fn takes_messages(&self) -> bool {
        true
    }

    fn accepted(&self, rows: Vec<QueueRow>, messages: Vec<Arc<StoredMessage>>) {
        let now = self.node.clock.now();
        let full = self.node.memory.held() >= self.node.config.limits.waiting;
        let mine: Vec<QueueRow> = rows
            .into_iter()
            .filter(|row| row.next_at <= now && self.node.ownership.reads(row.shard))
            .collect();
        if full || mine.is_empty() {
            return;
        }
        self.node.contents.keep(messages);
        // Full or gone: the reader finds them by itself.
        if self.handoff.try_send(mine).is_err() {
            self.node.reader.wake();
        }
    }

    fn commanded(&self, shards: &[ShardNo]) {
        if shards.iter().any(|shard| self.node.ownership.holds(*shard)) {
            self.node.commands.wake();
        }
    }
}

/// Outcomes of an earlier life of this node.
pub(crate) type Replays = Vec<Replayed>;
