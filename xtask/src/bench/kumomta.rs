//! KumoMTA, where its program is given: its defaults (RocksDB spool, no fsync), with DKIM, messages
//! in by SMTP and out to the sink.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::figures::Figures;
use super::peer::{CONNECTIONS, Peer, SELECTOR, SENDER_DOMAIN};
use super::plan::Plan;
use super::postfix::make_key;
use super::running::{Running, free_port};
use super::sink::Sink;
use crate::shell::{Failure, Outcome};

/// Names the program.
pub(super) const PROGRAM_VARIABLE: &str = "POSTRIDER_BENCH_KUMOD";

/// Measures it. `dir` is empty, and on the disk that the others use too.
pub(super) fn measure(
    program: &Path,
    peers_dir: &Path,
    dir: &Path,
    plan: Plan,
) -> Outcome<Figures> {
    let Some(kumod) = std::env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()) else {
        let what = format!("{PROGRAM_VARIABLE} names no program");
        return Err(Failure::new(what));
    };
    let sink = Sink::start(program)?;
    let (port, http_port) = (free_port()?, free_port()?);
    let key = dir.join("dkim.pem");
    make_key(&key)?;
    let policy = dir.join("init.lua");
    fs::write(&policy, policy_text(dir, port, http_port, sink.smtp_port()))
        .map_err(|error| Failure::new(format!("could not write the policy: {error}")))?;
    let mut command = Command::new(kumod);
    let mut running = Running::start(command.arg("--policy").arg(policy).args(["--user", "root"]))?;
    running.wait_for_port("KumoMTA", port)?;
    Peer {
        port,
        processes: vec![("kumod", running.pid())],
        sink: &sink,
        peers_dir,
        dir,
    }
    .measure(plan.peer_messages, plan.runs)
}

fn policy_text(dir: &Path, port: u16, http_port: u16, sink_port: u16) -> String {
    let dir = dir.display();
    format!(
        "local kumo = require 'kumo'

kumo.on('init', function()
  for _, name in ipairs {{ 'data', 'meta' }} do
    kumo.define_spool {{ name = name, path = '{dir}/spool-' .. name, kind = 'RocksDB' }}
  end
  kumo.configure_local_logs {{ log_dir = '{dir}/logs' }}
  kumo.start_http_listener {{ listen = '127.0.0.1:{http_port}', trusted_hosts = {{ '127.0.0.1' }} }}
  kumo.start_esmtp_listener {{ listen = '127.0.0.1:{port}', relay_hosts = {{ '127.0.0.1' }} }}
end)

kumo.on('get_queue_config', function()
  return kumo.make_queue_config {{
    protocol = {{ smtp = {{ mx_list = {{ '127.0.0.1' }} }} }},
  }}
end)

kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path {{
    enable_tls = 'Disabled',
    connection_limit = {CONNECTIONS},
    smtp_port = {sink_port},
    prohibited_hosts = {{}},
  }}
end)

local signer = kumo.dkim.rsa_sha256_signer {{
  domain = '{SENDER_DOMAIN}',
  selector = '{SELECTOR}',
  headers = {{ 'From', 'To', 'Subject', 'Date', 'Message-ID', 'MIME-Version', 'Content-Type' }},
  key = '{dir}/dkim.pem',
}}

kumo.on('smtp_server_message_received', function(msg)
  msg:dkim_sign(signer)
end)
"
    )
}
