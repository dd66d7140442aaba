//! What the commands print: JSON for programs, lines and tables for people.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::output;

/// Between columns.
const GAP: &str = "  ";

/// The result of a command.
pub(super) enum Shown {
    /// One thing that was made or changed, and what people should be told first.
    One { told: String, thing: Value },
    /// Things of one kind, an object each, with the columns that people see.
    Many {
        columns: &'static [&'static str],
        things: Vec<Value>,
    },
}

impl Shown {
    /// Prints it.
    ///
    /// # Errors
    /// Nobody reads standard output any more.
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let text = match self {
            Self::One { thing, .. } if as_json => serde_json::to_string_pretty(thing)?,
            Self::Many { things, .. } if as_json => serde_json::to_string_pretty(things)?,
            Self::One { told, thing } => format!("{told}\n{}", fields(thing)),
            Self::Many { columns, things } => table(columns, things),
        };
        output::line(text.trim_end())?;
        Ok(())
    }
}

/// A time as the API shows it; null if there is none.
pub(super) fn time(at: Option<OffsetDateTime>) -> Value {
    at.and_then(|at| at.format(&Rfc3339).ok())
        .map_or(Value::Null, Value::String)
}

fn fields(thing: &Value) -> String {
    let no_fields = Map::new();
    let fields = thing.as_object().unwrap_or(&no_fields);
    let width = fields.keys().map(String::len).max().unwrap_or_default();
    let lines = fields.iter().map(|(name, value)| match value.as_array() {
        Some(things) if things.iter().any(Value::is_object) => below(name, things),
        _ => format!("{GAP}{name:width$}{GAP}{}\n", cell(value)),
    });
    lines.collect()
}

/// Things that belong to the one shown: a table of their own, with the columns of the first.
fn below(name: &str, things: &[Value]) -> String {
    let first = things.first().and_then(Value::as_object);
    let columns: Vec<&str> = first
        .into_iter()
        .flat_map(|fields| fields.keys().map(String::as_str))
        .collect();
    let table = table(&columns, things);
    let lines = table.lines().map(|line| format!("{GAP}{GAP}{line}\n"));
    format!("{GAP}{name}\n{}", lines.collect::<String>())
}

fn table(columns: &[&str], things: &[Value]) -> String {
    let title = columns
        .iter()
        .map(|name| name.replace('_', " ").to_uppercase());
    let body = things
        .iter()
        .map(|thing| columns.iter().map(|name| cell(&thing[*name])).collect());
    let rows: Vec<Vec<String>> = std::iter::once(title.collect()).chain(body).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => fields.values().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned_and_absent_values_are_seen() {
        let things = [
            json!({"name": "a", "made_at": "2026", "scopes": ["x", "y"]}),
            json!({"name": "longer", "made_at": null, "scopes": []}),
        ];
        let expected = "NAME    MADE AT  SCOPES\na       2026     x,y\nlonger  -\n";
        assert_eq!(table(&["name", "made_at", "scopes"], &things), expected);
        assert_eq!(
            fields(&json!({"id": "1", "test": true})),
            "  id    1\n  test  true\n"
        );
        let with_things = json!({"id": "1", "records": [{"name": "a", "value": null}]});
        assert_eq!(
            fields(&with_things),
            "  id       1\n  records\n    NAME  VALUE\n    a     -\n"
        );
    }
}
