//! Which pairs of reverse-path and recipient have been tried before. Memory only: after a restart
//! each pair waits once more, as with any greylisting server.

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// Pairs remembered. Enough that a retry finds its first try, however much comes in between.
const PAIRS_MAX: u64 = 100_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Greylist {
    tried: Cache<(String, String), ()>,
}

impl Greylist {
    pub(super) fn new() -> Self {
        // Least recently used goes first: the usual policy may turn a newcomer away, and that
        // pair would be refused for ever.
        let tried = Cache::builder()
            .max_capacity(PAIRS_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { tried }
    }

    /// Notes a try; true if it is the first of its pair.
    pub(super) fn is_first_try(&self, reverse_path: &str, recipient: &str) -> bool {
        let pair = (reverse_path.to_owned(), recipient.to_owned());
        self.tried.entry(pair).or_insert(()).is_fresh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_try_of_a_pair_is_first() {
        let greylist = Greylist::new();
        assert!(greylist.is_first_try("b+1@s.test", "greylist@r.test"));
        assert!(!greylist.is_first_try("b+1@s.test", "greylist@r.test"));
        assert!(greylist.is_first_try("b+2@s.test", "greylist@r.test"));
        assert!(greylist.is_first_try("b+1@s.test", "greylist+x@r.test"));
        assert!(!greylist.is_first_try("b+2@s.test", "greylist@r.test"));
    }
}
