//! Egress sources: the addresses mail is sent from, interned so that an event names one in four
//! octets.

use std::net::IpAddr;

use crate::database::Store;
use crate::error::{During, StoreError};

impl Store {
    /// The number of a source, the same on every node and after every restart.
    ///
    /// # Errors
    /// Of the database.
    pub async fn register_source(
        &self,
        address: Option<IpAddr>,
        ehlo: &str,
    ) -> Result<i32, StoreError> {
        let operation = "register a source";
        let address = address.map(|address| address.to_string());
        sqlx::query(
            "INSERT INTO source (address, ehlo) VALUES ($1, $2)
             ON CONFLICT (coalesce(address, ''), ehlo) DO NOTHING",
        )
        .bind(&address)
        .bind(ehlo)
        .execute(&self.general)
        .await
        .during(operation)?;
        sqlx::query_scalar(
            "SELECT id FROM source WHERE coalesce(address, '') = coalesce($1, '') AND ehlo = $2",
        )
        .bind(&address)
        .bind(ehlo)
        .fetch_one(&self.general)
        .await
        .during(operation)
    }
}
