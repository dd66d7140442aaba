//! Lists in pages: `?limit=1..100&after=cursor` in, `{data, has_more, next}` out.
//! Knows nothing of what is listed.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::{Code, Problem};

const LIMIT_MAX: usize = 100;
const LIMIT_DEFAULT: usize = 20;

/// Which part of a list is wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageParameters {
    /// How many to list.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
}

impl PageParameters {
    /// Parameters taken from a list that has others of its own.
    pub(crate) fn new(limit: Option<usize>, after: Option<String>) -> Self {
        Self { limit, after }
    }

    /// The parameters, looked at.
    ///
    /// # Errors
    /// A limit out of range, or a cursor that no page of this list gave out.
    pub(crate) fn parse<C: std::str::FromStr>(&self) -> Result<PageRequest<C>, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            let detail = format!("limit must be from 1 to {LIMIT_MAX}");
            return Err(Problem::new(Code::InvalidParameter, detail));
        }
        let after = self
            .after
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| {
                let detail = "after must be the next of the page before";
                Problem::new(Code::InvalidParameter, detail)
            })?;
        Ok(PageRequest { limit, after })
    }
}

/// Which part of a list is wanted, with a cursor of type `C`.
pub(crate) struct PageRequest<C> {
    pub(crate) limit: usize,
    pub(crate) after: Option<C>,
}

/// Part of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page<T> {
    data: Vec<T>,
    /// Whether there is another page.
    has_more: bool,
    /// What to give as `after` for the next page; null on the last one.
    next: Option<String>,
}

impl<T> Page<T> {
    /// A page that goes on at `next`, however few items it has.
    pub(crate) fn until(data: Vec<T>, next: Option<String>) -> Self {
        Self {
            data,
            has_more: next.is_some(),
            next,
        }
    }

    /// A page of `items`, at most `limit` of them; one more than that shows that there is more.
    pub(crate) fn new<C: Display>(
        mut items: Vec<T>,
        limit: usize,
        cursor: impl Fn(&T) -> C,
    ) -> Self {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| has_more)
            .map(|last| cursor(last).to_string());
        Self {
            data: items,
            has_more,
            next,
        }
    }
}
