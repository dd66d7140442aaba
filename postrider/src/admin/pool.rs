//! `postrider admin pool` and `postrider admin source`.

use mail::ids::PoolId;
use serde_json::{Value, json};
use store::{Pool, PoolKind};

use super::args::{PoolCommand, SourceCommand};
use super::show::Shown;
use super::{Desk, check_name};
use crate::wiring::new_uuid;

const POOL_COLUMNS: &[&str] = &["id", "name", "kind"];
const SOURCE_COLUMNS: &[&str] = &["number", "address", "ehlo"];

impl Desk<'_> {
    pub(super) async fn pool(&self, command: PoolCommand) -> anyhow::Result<Shown> {
        match command {
            PoolCommand::Create { name } => {
                check_name(&name)?;
                let id = PoolId::from_uuid(new_uuid(self.provisioner.clock));
                let made = self.store.create_pool(id, &name, PoolKind::Direct).await?;
                Ok(Shown::One {
                    told: format!("made the pool {name}"),
                    thing: pool(&made),
                })
            }
            PoolCommand::List => Ok(Shown::Many {
                columns: POOL_COLUMNS,
                things: self.store.pools().await?.iter().map(pool).collect(),
            }),
        }
    }

    pub(super) async fn source(&self, command: SourceCommand) -> anyhow::Result<Shown> {
        let SourceCommand::List = command;
        let sources = self.store.sources().await?.into_iter();
        let thing = |source: store::SourceRecord| {
            let address = source.address.map(|address| address.to_string());
            json!({
                "number": source.number,
                "address": address.unwrap_or_else(|| "chosen by the system".to_owned()),
                "ehlo": source.ehlo,
            })
        };
        Ok(Shown::Many {
            columns: SOURCE_COLUMNS,
            things: sources.map(thing).collect(),
        })
    }
}

fn pool(pool: &Pool) -> Value {
    let kind = match pool.kind {
        PoolKind::Direct => "direct",
        PoolKind::Sandbox => "sandbox",
    };
    json!({"id": pool.id, "name": pool.name, "kind": kind})
}
