//! Recipient domains, interned: four octets in a queue row instead of a name.

use std::collections::{BTreeSet, HashMap};

use mail::domain_name::DomainName;

use crate::database::Store;
use crate::decode::domain_name;
use crate::error::{During, StoreError};
use crate::numbers::RecipientDomainNo;

impl Store {
    /// The numbers of these names, by position; unknown names get one.
    ///
    /// # Errors
    /// Of the database.
    pub async fn recipient_domain_nos(
        &self,
        names: &[&DomainName],
    ) -> Result<Vec<RecipientDomainNo>, StoreError> {
        let cache = &self.cache.recipient_domain_nos;
        let known: Vec<Option<RecipientDomainNo>> =
            names.iter().map(|name| cache.get(*name)).collect();
        let missing: BTreeSet<&str> = names
            .iter()
            .zip(&known)
            .filter(|(_, no)| no.is_none())
            .map(|(name, _)| name.as_str())
            .collect();
        let found = if missing.is_empty() {
            HashMap::new()
        } else {
            self.intern(missing).await?
        };
        names
            .iter()
            .zip(known)
            .map(|(name, no)| {
                let no = no.or_else(|| found.get(name.as_str()).copied());
                let no = no.ok_or_else(|| StoreError::corrupt("recipient domain", name))?;
                cache.insert((*name).clone(), no);
                self.cache
                    .recipient_domain_names
                    .insert(no, (*name).clone());
                Ok(no)
            })
            .collect()
    }

    /// Looks before it inserts: a conflicting insert would use up a number each time.
    async fn intern(
        &self,
        names: BTreeSet<&str>,
    ) -> Result<HashMap<String, RecipientDomainNo>, StoreError> {
        let mut found = self.interned(names.iter().copied().collect()).await?;
        let new: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !found.contains_key(*name))
            .collect();
        if !new.is_empty() {
            // Sorted by the set: unsorted names of two callers would deadlock.
            sqlx::query(
                "INSERT INTO recipient_domain (name) SELECT u.name FROM unnest($1::text[])
                 WITH ORDINALITY AS u (name, position) ORDER BY position ON CONFLICT DO NOTHING",
            )
            .bind(&new)
            .execute(&self.general)
            .await
            .during("intern recipient domains")?;
            found.extend(self.interned(new).await?);
        }
        Ok(found)
    }

    async fn interned(
        &self,
        names: Vec<&str>,
    ) -> Result<HashMap<String, RecipientDomainNo>, StoreError> {
        let rows: Vec<(String, i32)> = sqlx::query_as(
            "SELECT u.name, d.id FROM unnest($1::text[]) AS u (name)
             CROSS JOIN LATERAL (SELECT id FROM recipient_domain r WHERE r.name = u.name OFFSET 0) d",
        )
        .bind(names)
        .fetch_all(&self.general)
        .await
        .during("look up recipient domains")?;
        Ok(rows
            .into_iter()
            .map(|(name, no)| (name, RecipientDomainNo(no)))
            .collect())
    }

    /// The names of these numbers, by position.
    ///
    /// # Errors
    /// `Corrupt` for a number that was never given; of the database.
    pub async fn recipient_domain_names(
        &self,
        nos: &[RecipientDomainNo],
    ) -> Result<Vec<DomainName>, StoreError> {
        let cache = &self.cache.recipient_domain_names;
        let known: HashMap<RecipientDomainNo, DomainName> = nos
            .iter()
            .filter_map(|no| Some((*no, cache.get(no)?)))
            .collect();
        let missing: BTreeSet<i32> = nos
            .iter()
            .filter(|no| !known.contains_key(no))
            .map(|no| no.0)
            .collect();
        let mut names = known;
        if !missing.is_empty() {
            for (no, name) in self.names_of(missing.into_iter().collect()).await? {
                let name = domain_name(&name)?;
                cache.insert(RecipientDomainNo(no), name.clone());
                names.insert(RecipientDomainNo(no), name);
            }
        }
        nos.iter()
            .map(|no| {
                let name = names.get(no).cloned();
                name.ok_or_else(|| StoreError::corrupt("recipient domain", no.0))
            })
            .collect()
    }

    async fn names_of(&self, nos: Vec<i32>) -> Result<Vec<(i32, String)>, StoreError> {
        sqlx::query_as(
            "SELECT u.id, d.name FROM unnest($1::int4[]) AS u (id)
             CROSS JOIN LATERAL (SELECT name FROM recipient_domain r WHERE r.id = u.id OFFSET 0) d",
        )
        .bind(nos)
        .fetch_all(&self.general)
        .await
        .during("read names of recipient domains")
    }
}
