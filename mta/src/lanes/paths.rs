//! The paths in use, by site and source. A path exists while something waits for it, works on it,
//! or must be remembered about it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use time::OffsetDateTime;

use super::{Path, PathKey, Waiting};
use crate::config::{EgressSource, MtaLimits};
use crate::routing::Route;
use crate::sync::lock;

/// A delivery that its path cannot take now.
#[derive(Debug)]
pub(crate) struct Overflow {
    pub(crate) waiting: Box<Waiting>,
    /// When to look at it again.
    pub(crate) until: OffsetDateTime,
}

/// All paths of a node.
#[derive(Debug)]
pub(crate) struct Paths {
    limits: MtaLimits,
    paths: Mutex<HashMap<PathKey, Arc<Path>>>,
}

impl Paths {
    pub(crate) fn new(limits: MtaLimits) -> Self {
        Self {
            limits,
            paths: Mutex::default(),
        }
    }

    /// Queues a delivery on its path. Returns the path if it needs one more session.
    ///
    /// # Errors
    /// The delivery, when it has to be parked.
    pub(crate) fn push(
        &self,
        waiting: Waiting,
        source: &Arc<EgressSource>,
        route: Arc<Route>,
        now: OffsetDateTime,
    ) -> Result<Option<Arc<Path>>, Overflow> {
        let key = PathKey {
            site: route.site.clone(),
            source: source.number,
        };
        let path = {
            let mut paths = lock(&self.paths);
            let path = paths.entry(key.clone()).or_insert_with(|| {
                Arc::new(Path::new(key, source.clone(), route.clone(), &self.limits))
            });
            path.wake(now);
            match path.push(waiting, route, now) {
                Ok(false) => return Ok(None),
                Ok(true) => path.clone(),
                Err((waiting, until)) => return Err(Overflow { waiting, until }),
            }
        };
        Ok(Some(path))
    }

    /// Takes out what waits of the rows that `gone` names.
    pub(crate) fn extract(&self, mut gone: impl FnMut(&Waiting) -> bool) -> Vec<Waiting> {
        let paths: Vec<Arc<Path>> = lock(&self.paths).values().cloned().collect();
        paths
            .iter()
            .flat_map(|path| path.extract(&mut gone))
            .collect()
    }

    /// Paths on which deliveries wait for a session that nobody started.
    pub(crate) fn abandoned(&self, now: OffsetDateTime) -> Vec<Arc<Path>> {
        let paths = lock(&self.paths);
        paths
            .values()
            .filter(|path| path.is_abandoned(now))
            .cloned()
            .collect()
    }

    /// Forgets paths nobody uses.
    pub(crate) fn sweep(&self, now: OffsetDateTime) {
        lock(&self.paths).retain(|_, path| !path.is_unused(now));
    }

    /// Sessions, busy and idle, over all paths.
    pub(crate) fn sessions(&self) -> usize {
        lock(&self.paths).values().map(|path| path.sessions()).sum()
    }
}
