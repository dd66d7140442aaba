//! Random bits for ids and secrets. Nothing here is for statistics.

/// `N` octets nobody can guess.
pub(crate) fn octets<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    aws_lc_rs::rand::fill(&mut octets)
        .expect("the generator ends the process rather than give no randomness");
    octets
}
