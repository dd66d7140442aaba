//! Sends rows that were read, or handed over, where they belong: out of the queue when they have
//! expired, to the ambiguous ones, or over the route of their domain to a path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mail::domain_name::DomainName;
use store::{PoolKind, PoolNo, QueueFlags, QueueRow, RecipientDomainNo, StoreError};
use time::OffsetDateTime;

use super::settler::Unsettled;
use super::{Suspicion, park};
use crate::delivery::{self, Attempted};
use crate::lanes::{Overflow, Waiting};
use crate::node::Node;
use crate::routing::{Route, RouteFailure};
use crate::session;
use crate::sync::lock;

/// When a pool has nowhere to send to, its mail is looked at again this much later.
const NO_WAY_PAUSE: Duration = Duration::from_secs(300);
/// One account holds at most this share of the node's memory for deliveries.
const ACCOUNT_SHARE: usize = 4;

/// Sends admitted rows where they belong.
pub(crate) async fn dispatch(node: &Arc<Node>, rows: Vec<QueueRow>) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let now = node.clock.now();
    let mut surplus = Vec::new();
    let mut groups: HashMap<(Option<PoolNo>, RecipientDomainNo), Vec<QueueRow>> = HashMap::new();
    for row in rows {
        // Doubt comes first: an outcome that is handed in ends the delivery better than its expiry.
        if node.ambiguity.suspect(&row) == Suspicion::Open {
            continue;
        }
        if row.expires_at <= now {
            expire(node, row, now);
        } else if row.flags.contains(QueueFlags::HELD) {
            // Somebody has to decide; the row is here only because its time was moved.
            node.memory.forget(row.key);
        } else if let Some(until) = over_its_share(node, &row, now) {
            surplus.push((row, until));
        } else {
            groups.entry((row.pool, row.domain)).or_default().push(row);
        }
    }
    if !surplus.is_empty() {
        park(node, surplus).await;
    }
    if groups.is_empty() {
        return Ok(());
    }
    let (keys, groups): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    let numbers: Vec<RecipientDomainNo> = keys.iter().map(|(_, domain)| *domain).collect();
    let names = match node.store.recipient_domain_names(&numbers).await {
        Ok(names) => names,
        Err(error) => {
            groups
                .iter()
                .flatten()
                .for_each(|row| node.memory.forget(row.key));
            return Err(error);
        }
    };
    for (((pool, _), domain), rows) in keys.into_iter().zip(names).zip(groups) {
        let node = node.clone();
        node.clone()
            .work
            .spawn(async move { route(&node, pool, domain, rows).await });
    }
    Ok(())
}

/// Until when to park a row of an account that fills too much of the memory.
fn over_its_share(node: &Node, row: &QueueRow, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let held = node.memory.held_by(row.account);
    let over = held > node.config.limits.waiting / ACCOUNT_SHARE;
    over.then(|| lock(&node.surplus).place(&row.account, now, 0.0))
}

/// Ends a delivery whose time is over.
pub(crate) fn expire(node: &Node, row: QueueRow, now: OffsetDateTime) {
    let settlement = delivery::expired(row, now);
    node.settler.queue(Unsettled {
        settlement,
        ticket: None,
        intent: None,
    });
}

/// Ends a delivery whose recipient is suppressed by now.
pub(crate) fn suppress(node: &Node, row: QueueRow) {
    let settlement = delivery::suppressed(row, node.clock.now());
    node.settler.queue(Unsettled {
        settlement,
        ticket: None,
        intent: None,
    });
}

/// Finds the way of one domain's rows and queues them on their paths.
async fn route(node: &Arc<Node>, pool: Option<PoolNo>, domain: DomainName, rows: Vec<QueueRow>) {
    match find_route(node, pool, &domain).await {
        Ok(Way::Route(route)) => enqueue(node, rows, &route).await,
        Ok(Way::Failed(failure)) => {
            for row in rows {
                let attempted = Attempted::not_routed(row, &failure);
                delivery::conclude(node, attempted, None).await;
            }
        }
        Ok(Way::None(reason)) => {
            node.metrics.own_faults.with_label_values(&["no_way"]).inc();
            tracing::error!(
                reason,
                deliveries = rows.len(),
                "mail waits because it cannot be routed"
            );
            let until = node.clock.now() + NO_WAY_PAUSE;
            park(node, rows.into_iter().map(|row| (row, until)).collect()).await;
        }
        Err(error) => {
            tracing::warn!(error = %error, "a pool could not be looked up; its mail is read again");
            rows.iter().for_each(|row| node.memory.forget(row.key));
        }
    }
}

enum Way {
    Route(Arc<Route>),
    Failed(RouteFailure),
    /// The operator has to do something first.
    None(&'static str),
}

/// The router bounds its own look-ups; cached and static routes do not wait for them.
async fn find_route(
    node: &Node,
    pool: Option<PoolNo>,
    domain: &DomainName,
) -> Result<Way, StoreError> {
    let kind = match pool {
        None => PoolKind::Direct,
        Some(no) => match node.store.pool_by_no(no).await? {
            Some(pool) => pool.kind,
            None => return Ok(Way::None("its pool does not exist any more")),
        },
    };
    if kind == PoolKind::Sandbox {
        return Ok(match &node.sandbox_route {
            Some(route) => Way::Route(route.clone()),
            None => {
                Way::None("this node has no sandbox: set [sandbox] listen in the configuration")
            }
        });
    }
    Ok(match node.router.route(domain).await {
        Ok(route) => Way::Route(route),
        Err(failure) => Way::Failed(failure),
    })
}

async fn enqueue(node: &Arc<Node>, rows: Vec<QueueRow>, route: &Arc<Route>) {
    let now = node.clock.now();
    let mut overflow = Vec::new();
    for row in rows {
        let class = node.ownership.class_of(row.shard);
        let source = node.source_of(&row);
        match node
            .paths
            .push(Waiting { row, class }, source, route.clone(), now)
        {
            Ok(None) => {}
            Ok(Some(path)) => session::spawn(node, path),
            Err(Overflow { waiting, until }) => overflow.push((waiting.row, until)),
        }
    }
    if !overflow.is_empty() {
        park(node, overflow).await;
    }
}
