//! Standard output, which belongs to the results of commands, and the report of an error.
//! Logs go elsewhere (`service::telemetry`).

use std::io::{self, Write};

/// Writes `text` and a line end to standard output, at once.
///
/// # Errors
/// Nobody reads it any more, or the disk behind it is full.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Tells people what went wrong: the error first, then its causes, one a line.
pub(crate) fn report(error: &anyhow::Error) {
    eprintln!("error: {error}");
    let mut above = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Transparent errors repeat their source.
        if !above.contains(&text) {
            eprintln!("  because: {text}");
        }
        above = text;
    }
}
