//! The yardstick: how many RSA-2048 signatures this machine makes with all its cores. Every message
//! needs one, so no platform on it delivers more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mail::dkim_key::{DkimKeyError, SigningKey};
use serde::Serialize;

const MEASURED_FOR: Duration = Duration::from_secs(1);

/// What the machine can do.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    /// Of all cores together, measured together.
    pub(super) rsa_2048_signatures_per_s: f64,
}

/// Signs on all cores for a second. Blocking.
///
/// # Errors
/// No key can be made.
pub(super) fn measure() -> Result<Machine, DkimKeyError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let key = SigningKey::generate_rsa_2048()?;
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let signatures: u64 = thread::scope(|scope| {
        let sign = || {
            let mut count = 0_u64;
            while !over.load(Ordering::Relaxed) {
                if key.sign(&count.to_be_bytes()).is_err() {
                    break;
                }
                count += 1;
            }
            count
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(sign)).collect();
        thread::sleep(MEASURED_FOR);
        over.store(true, Ordering::Relaxed);
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .sum()
    });
    let rsa_2048_signatures_per_s = signatures as f64 / started.elapsed().as_secs_f64();
    Ok(Machine {
        cores,
        rsa_2048_signatures_per_s,
    })
}
