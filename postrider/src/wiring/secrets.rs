//! Key files: 32 octets in base64, one key a line, newest first. Made here for development, read
//! here for everyone. Keys are never printed.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail::verp::VerpKey;
use service::config::SecretsConfig;
use store::{SealKey, Sealer};

const HOW_TO_MAKE: &str = "make one with: (umask 077; head -c 32 /dev/urandom | base64 > FILE)";

type Secret = [u8; 32];

/// Opens and seals stored secrets with the master keys of the configuration.
///
/// # Errors
/// No file is named, or it holds something else than keys.
pub(crate) fn sealer(config: &SecretsConfig) -> anyhow::Result<Sealer> {
    let path = config.master_key_file.as_deref().ok_or_else(|| {
        anyhow!(
            "[secrets] master_key_file is not set; stored secrets are encrypted with it. \
             {HOW_TO_MAKE}"
        )
    })?;
    let mut keys = read(path)?
        .into_iter()
        .map(|secret| SealKey::new(seal_number(&secret), secret));
    let current = keys
        .next()
        .ok_or_else(|| anyhow!("{} is empty", path.display()))?;
    Ok(Sealer::new(current, keys.collect()))
}

/// The newest key of the file that return paths are signed with.
///
/// # Errors
/// The file holds something else than keys, or two keys that cannot be told apart.
pub(crate) fn return_path_key(path: &Path) -> anyhow::Result<VerpKey> {
    let secrets = read(path)?;
    let mut numbers: Vec<u8> = secrets.iter().map(verp_number).collect();
    numbers.sort_unstable();
    ensure!(
        numbers.windows(2).all(|pair| pair[0] != pair[1]),
        "two keys in {} cannot be told apart by their number: replace the newest",
        path.display()
    );
    let newest = secrets
        .first()
        .ok_or_else(|| anyhow!("{} is empty", path.display()))?;
    Ok(VerpKey::new(verp_number(newest), newest))
}

/// Makes a file with one random key, for its owner only, unless there is one.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn ensure_key_file(path: &Path) -> anyhow::Result<()> {
    let secret: Secret = rand::random();
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match new {
        Ok(mut file) => {
            writeln!(file, "{}", STANDARD.encode(secret)).and_then(|()| file.sync_all())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("could not write the key file {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<Secret>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "could not read the key file {}. {HOW_TO_MAKE}",
            path.display()
        )
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets = lines.enumerate().map(|(index, line)| {
        let octets = STANDARD
            .decode(line)
            .ok()
            .and_then(|octets| Secret::try_from(octets).ok());
        // The line itself stays out of the message.
        octets.ok_or_else(|| {
            anyhow!(
                "key {} in {} is not 32 octets in base64. {HOW_TO_MAKE}",
                index + 1,
                path.display()
            )
        })
    });
    let secrets = secrets.collect::<anyhow::Result<Vec<_>>>()?;
    if secrets.is_empty() {
        bail!("the key file {} is empty. {HOW_TO_MAKE}", path.display());
    }
    Ok(secrets)
}

/// Numbers come from the key itself, so that adding or removing a line renames no other key, and
/// a wrong file is noticed as an unknown number.
fn seal_number(secret: &Secret) -> i32 {
    let hash = fingerprint(secret, b"postrider master key number");
    i32::from_be_bytes([hash[0] & 0x7f, hash[1], hash[2], hash[3]])
}

fn verp_number(secret: &Secret) -> u8 {
    fingerprint(secret, b"postrider return path key number")[0]
}

fn fingerprint(secret: &Secret, purpose: &[u8]) -> [u8; 4] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(purpose);
    context.update(secret);
    let hash = context.finish();
    let mut first = [0; 4];
    first.copy_from_slice(&hash.as_ref()[..4]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_made_file_is_private_kept_and_readable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        ensure_key_file(&path).unwrap();
        let first = std::fs::read(&path).unwrap();
        ensure_key_file(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let config = SecretsConfig {
            master_key_file: Some(path.clone()),
        };
        let (number, sealed) = sealer(&config).unwrap().seal(b"x", b"y").unwrap();
        assert_eq!(
            sealer(&config)
                .unwrap()
                .open(number, &sealed, b"y")
                .unwrap(),
            b"x"
        );
        return_path_key(&path).unwrap();
    }

    #[test]
    fn an_older_key_still_opens_after_a_newer_was_put_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let config = SecretsConfig {
            master_key_file: Some(path.clone()),
        };
        let (old, new) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        std::fs::write(&path, format!("{old}\n")).unwrap();
        let (number, sealed) = sealer(&config).unwrap().seal(b"x", b"").unwrap();
        std::fs::write(&path, format!("{new}\n{old}\n")).unwrap();
        let rotated = sealer(&config).unwrap();
        assert_eq!(rotated.open(number, &sealed, b"").unwrap(), b"x");
        assert_ne!(rotated.seal(b"x", b"").unwrap().0, number);
    }

    #[test]
    fn wrong_files_are_named_without_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wrong.key");
        for text in ["", "c2hvcnQ=", "not base64 at all"] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", return_path_key(&path).unwrap_err());
            assert!(error.contains("wrong.key"), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        assert!(sealer(&SecretsConfig::default()).is_err());
    }
}
