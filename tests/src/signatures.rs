//! Mail as programs read it that others wrote: dkimpy and OpenDKIM check its signatures, Python
//! takes it apart. Keys come from the caller instead of DNS.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::peer::Peer;
use crate::python::Python;

const READ: &str = "
import dkim, hashlib, json, sys
from email import message_from_bytes, policy

given = json.load(sys.stdin)

def key(name, timeout=None):
    return given['keys'][name.decode().rstrip('.')].encode()

def passes(octets, at):
    try:
        return dkim.DKIM(octets).verify(idx=at, dnsfunc=key)
    except Exception as error:
        return repr(error)

def read(path):
    octets = open(path, 'rb').read()
    mail = message_from_bytes(octets, policy=policy.SMTP)
    part = lambda kind: (lambda found: found and found.get_content())(mail.get_body((kind,)))
    files = [[file.get_filename(), hashlib.sha256(file.get_payload(decode=True)).hexdigest()]
             for file in mail.iter_attachments()]
    signatures = len(mail.get_all('DKIM-Signature', []))
    return {'subject': mail['subject'], 'text': part('plain'), 'html': part('html'), 'files': files,
            'defects': [str(d) for d in mail.defects],
            'passes': [passes(octets, at) for at in range(signatures)]}

json.dump([read(path) for path in given['paths']], sys.stdout)
";

/// Name and text of the TXT records that hold the keys.
pub type Keys = BTreeMap<String, String>;

/// What Python reads in each file (lines end in CRLF), in order: `subject`, `text`, `html`,
/// `files` (name and SHA-256 each), `defects`, and `passes`: for each signature whether dkimpy
/// takes it. None, and a loud line, where the library cannot be had.
pub fn read_by_python(files: &[PathBuf], keys: &Keys) -> Option<Vec<Value>> {
    let python = Python::with_library("dkimpy==1.1.8", "dkim")?;
    let read = python.run(READ, &json!({"paths": files, "keys": keys}));
    Some(read.as_array().unwrap().clone())
}

/// What OpenDKIM says of the signatures of each file: those that pass. None, and a loud line,
/// where it is not there.
pub fn passed_by_opendkim(dir: &Path, files: &[PathBuf], keys: &Keys) -> Option<Vec<usize>> {
    let peer = Peer::find_program("opendkim")?;
    let records = keys.iter().map(|(name, text)| format!("{name} {text}\n"));
    let records_file = dir.join("keys");
    fs::write(&records_file, records.collect::<String>()).unwrap();
    let config = dir.join("opendkim.conf");
    let text = format!("Mode v\nTestPublicKeys {}\n", records_file.display());
    fs::write(&config, text).unwrap();
    let passed = |file: &PathBuf| {
        let mut command = Command::new(peer.root.join("usr/sbin/opendkim"));
        let command = command
            .arg("-x")
            .arg(&config)
            .arg("-vv")
            .arg("-t")
            .arg(file);
        let output = command.envs(peer.libraries()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success() && said.contains("dkim="), "{said}");
        said.matches("dkim=pass").count()
    };
    Some(files.iter().map(passed).collect())
}
