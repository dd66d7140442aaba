//! Where a test process keeps its files and listens: a directory under /tmp, and an address of
//! the loopback network that no other test process uses, so that ports never collide.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

/// Below the range from which the system takes ports for outgoing connections.
static NEXT_PORT: AtomicU16 = AtomicU16::new(21_000);

/// This process's own address in 127.0.0.0/8: the low 22 bits of its number.
pub fn own_ip() -> IpAddr {
    ip_in_range(64)
}

/// Another such address, for a second host that has to listen on the same port.
pub fn second_ip() -> IpAddr {
    ip_in_range(128)
}

fn ip_in_range(first: u8) -> IpAddr {
    let [_, high, middle, low] = process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(
        127,
        first | (high & 0x3f),
        middle,
        low.clamp(1, 254),
    ))
}

/// An address on which nothing listens yet. The same one can be listened on again after a crash.
pub fn free_address() -> SocketAddr {
    SocketAddr::new(own_ip(), NEXT_PORT.fetch_add(1, Ordering::Relaxed))
}

/// A directory that goes with the value. Everybody may enter it, because PostgreSQL may have to
/// run as another user.
pub fn directory() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("pr-test-")
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}
