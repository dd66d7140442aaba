//! Mail programs that others wrote, as `cargo xtask bootstrap` unpacks them: where they are, and
//! what a program needs that was never installed.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

/// An unpacked package.
pub struct Peer {
    dir: PathBuf,
    /// What would be `/` if it were installed.
    pub root: PathBuf,
}

impl Peer {
    /// The server unpacked as `name`; none, and a loud line, where it is not there or servers
    /// cannot change to their own users.
    pub fn find(name: &str) -> Option<Self> {
        let peer = Self::find_program(name)?;
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            eprintln!("SKIPPED: {name} has to be started as root");
            return None;
        }
        Some(peer)
    }

    /// The package unpacked as `name`; none, and a loud line, where it is not there.
    pub fn find_program(name: &str) -> Option<Self> {
        let given = env::var_os("POSTRIDER_PEERS").map(PathBuf::from);
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/peers");
        let dir = fs::canonicalize(given.unwrap_or_else(|| own.into())).unwrap_or_default();
        if !dir.join(name).join("complete").exists() {
            eprintln!("SKIPPED: {name} is not there: run `cargo xtask bootstrap`");
            return None;
        }
        let root = dir.join(name).join("root");
        Some(Self { dir, root })
    }

    /// Where the libraries are that came with the package.
    pub fn libraries(&self) -> HashMap<&'static str, OsString> {
        let own = env::join_paths(library_dirs(&self.root)).unwrap();
        HashMap::from([("LD_LIBRARY_PATH", own)])
    }

    /// Libraries that came with the package, and users that its installation would have made.
    pub fn environment(&self) -> HashMap<&'static str, OsString> {
        let wrapper_dirs = library_dirs(&self.dir.join("nss-wrapper/root"));
        let wrapper = wrapper_dirs.iter().map(|dir| dir.join("libnss_wrapper.so"));
        let wrapper = wrapper.filter(|file| file.exists());
        let mut all = self.libraries();
        all.extend([
            ("LD_PRELOAD", env::join_paths(wrapper).unwrap()),
            ("NSS_WRAPPER_PASSWD", self.dir.join("passwd").into()),
            ("NSS_WRAPPER_GROUP", self.dir.join("group").into()),
        ]);
        all
    }
}

/// `usr/lib` and the directories below it: that of the machine, and the package's own.
fn library_dirs(root: &Path) -> Vec<PathBuf> {
    let libraries = root.join("usr/lib");
    let entries = fs::read_dir(&libraries).into_iter();
    let paths = entries.flatten().flatten().map(|entry| entry.path());
    let below = paths.filter(|path| path.is_dir()).collect::<Vec<_>>();
    below.into_iter().chain([libraries]).collect()
}

/// Writes `cert.pem` and `key.pem` of a name into a directory; the key is readable to its user.
pub fn write_certificate(dir: &Path, name: &str, user: u32) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    chown(dir.join("key.pem"), Some(user), Some(user)).unwrap();
}
