//! Looking at what others publish in the DNS, now: TXT records and chains of aliases, nothing
//! remembered between two questions. Routing of mail has a resolver of its own, with a cache.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long one query to one name server may take.
const QUERY_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is sent again.
const RETRIES: usize = 1;
/// One question with everything it takes. Somebody waits for the answer in an HTTP request.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);
/// Questions under way at once, all callers together; others wait for their turn, however long that
/// takes: that others ask slow name servers is no answer of one's own.
const QUESTIONS_MAX: usize = 64;
/// Aliases that lead further than this lead nowhere.
const ALIASES_MAX: usize = 8;

/// Why nothing can be looked up.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// No name server is configured, and the system names none.
    #[error("could not read which name servers the system uses: name some in [dns] nameservers")]
    System(#[source] NetError),
    /// The library refused the configuration.
    #[error("could not set up the resolver")]
    SetUp(#[source] NetError),
}

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// TXT records, the strings of each joined without anything between.
    Texts(String),
    /// The targets of CNAME records, from the name on, in order.
    Aliases(String),
}

/// What is published, nothing if there is no such name or record; or, for people, why the DNS could
/// not tell: no answer in time, SERVFAIL, REFUSED.
pub type Published = Result<Vec<String>, String>;

/// Asks name servers. Clones share the limits.
#[derive(Clone)]
pub struct Resolver {
    /// None: nobody is asked.
    resolver: Option<TokioResolver>,
    turns: Arc<Semaphore>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("offline", &self.resolver.is_none())
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks these servers; none: those of the system.
    ///
    /// # Errors
    /// See [`ResolverError`].
    pub fn new(nameservers: &[SocketAddr]) -> Result<Self, ResolverError> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if nameservers.is_empty() {
            TokioResolver::builder_tokio().map_err(ResolverError::System)?
        } else {
            TokioResolver::builder_with_config(servers(nameservers), provider)
        };
        set_options(builder.options_mut());
        let resolver = builder.build().map_err(ResolverError::SetUp)?;
        Ok(Self {
            resolver: Some(resolver),
            turns: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        })
    }

    /// Asks nobody: every answer is that the DNS could not tell.
    pub fn offline() -> Self {
        Self {
            resolver: None,
            turns: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        }
    }

    /// Looks all of this up at the same time; answers in the order of the questions.
    pub async fn look_up(&self, lookups: Vec<Lookup>) -> Vec<Published> {
        let no_answer = || Err("the look-up broke down".to_owned());
        let mut answers: Vec<Published> = lookups.iter().map(|_| no_answer()).collect();
        let mut asking = JoinSet::new();
        for (index, lookup) in lookups.into_iter().enumerate() {
            let resolver = self.clone();
            asking.spawn(async move { (index, resolver.answer(lookup).await) });
        }
        while let Some(answered) = asking.join_next().await {
            match answered {
                Ok((index, answer)) => answers[index] = answer,
                Err(error) => tracing::error!(%error, "a DNS look-up broke down"),
            }
        }
        answers
    }

    async fn answer(&self, lookup: Lookup) -> Published {
        let Some(resolver) = &self.resolver else {
            return Err("this platform does not use the DNS".to_owned());
        };
        let _turn = self.turns.acquire().await.ok();
        let asking = async {
            match &lookup {
                Lookup::Texts(name) => texts(resolver, name).await,
                Lookup::Aliases(name) => aliases(resolver, name).await,
            }
        };
        let in_time = tokio::time::timeout(QUESTION_PATIENCE, asking).await;
        in_time.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

async fn texts(resolver: &TokioResolver, name: &str) -> Published {
    let name = absolute(name)?;
    records(resolver, &name, RecordType::TXT, |data| match data {
        RData::TXT(txt) => {
            let joined = txt.txt_data.concat();
            Some(String::from_utf8_lossy(&joined).into_owned())
        }
        _ => None,
    })
    .await
}

async fn aliases(resolver: &TokioResolver, name: &str) -> Published {
    let mut chain: Vec<Name> = Vec::new();
    let mut at = absolute(name)?;
    while chain.len() < ALIASES_MAX {
        let targets = records(resolver, &at, RecordType::CNAME, |data| match data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        });
        // RFC 1034 section 3.6.2: a name has one alias.
        let Some(target) = targets.await?.into_iter().next() else {
            break;
        };
        if chain.contains(&target) {
            break;
        }
        chain.push(target.clone());
        at = target;
    }
    Ok(chain.iter().map(text_of).collect())
}

async fn records<T>(
    resolver: &TokioResolver,
    name: &Name,
    kind: RecordType,
    pick: impl Fn(&RData) -> Option<T>,
) -> Result<Vec<T>, String> {
    match resolver.lookup(name.clone(), kind).await {
        Ok(lookup) => {
            let records = lookup.answers().iter();
            Ok(records.filter_map(|record| pick(&record.data)).collect())
        }
        Err(error) => nothing(error).map(|()| Vec::new()),
    }
}

/// Nothing is published, or the DNS could not tell.
fn nothing(error: NetError) -> Result<(), String> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => Ok(()),
            code => Err(format!("the name server answered {code}")),
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => Ok(()),
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Err(format!("the name server answered {code}"))
        }
        NetError::Timeout => Err("no answer in time".to_owned()),
        other => Err(other.to_string()),
    }
}

/// With the last dot: the search list of the machine has no place here.
fn absolute(name: &str) -> Result<Name, String> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes))
        .map_err(|error| format!("{name} cannot be asked for: {error}"))
}

/// Lower case without the last dot.
fn text_of(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

fn servers(nameservers: &[SocketAddr]) -> ResolverConfig {
    let on_port = |mut connection: ConnectionConfig, port| {
        connection.port = port;
        connection
    };
    let server = |server: &SocketAddr| {
        let connections = vec![
            on_port(ConnectionConfig::udp(), server.port()),
            on_port(ConnectionConfig::tcp(), server.port()),
        ];
        NameServerConfig::new(server.ip(), true, connections)
    };
    ResolverConfig::from_name_servers(nameservers.iter().map(server).collect())
}

fn set_options(options: &mut ResolverOpts) {
    options.timeout = QUERY_PATIENCE;
    options.attempts = RETRIES;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    // The chain of aliases is what is asked for, not what is behind it.
    options.preserve_intermediates = true;
}
