//! How results look: columns, YAML, JSON and differences.

use std::{fmt::Write as _, io};

use serde::Serialize;
use serde_json::Value;
use serde_yaml_ng::with::singleton_map_recursive;

use crate::{args::Format, error::Failure};

/// The longest text that is compared line by line; the work grows with its square.
const MAX_DIFF_LINES: usize = 4000;

/// Fields that say which row this is.
const NAMING: [&str; 4] = ["key", "id", "peer", "service"];

/// A table for people: columns as wide as their widest cell, two spaces between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Table {
            head: head.iter().map(|cell| (*cell).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// A table of whatever a list of flat JSON objects holds: what names a row first.
    pub(crate) fn of_values(values: &[Value]) -> Self {
        let mut head: Vec<String> = Vec::new();
        for map in values.iter().filter_map(Value::as_object) {
            for key in map.keys() {
                if !head.contains(key) {
                    head.push(key.clone());
                }
            }
        }
        head.sort_by_key(|key| !NAMING.contains(&key.as_str()));
        let rows = values
            .iter()
            .map(|value| match value.as_object() {
                Some(map) => head.iter().map(|key| cell(map.get(key))).collect(),
                None => vec![cell(Some(value))],
            })
            .collect();
        Table {
            head: head.iter().map(|key| key.to_uppercase()).collect(),
            rows,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows without the head, aligned with it, as single lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self
            .rows
            .iter()
            .map(Vec::len)
            .chain([self.head.len()])
            .max()
            .unwrap_or(0);
        let width = |at: usize| {
            let cells = self
                .rows
                .iter()
                .chain([&self.head])
                .filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let gap = widths[at].saturating_sub(cell.chars().count()) + 2;
                line += cell;
                line.extend(std::iter::repeat_n(' ', gap));
            }
            line.trim_end().to_owned()
        };
        [&self.head]
            .into_iter()
            .chain(&self.rows)
            .map(line)
            .collect()
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines()
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => shown(text),
        Some(Value::Array(items)) if items.iter().all(|item| !item.is_object()) => items
            .iter()
            .map(|item| cell(Some(item)))
            .collect::<Vec<_>>()
            .join(","),
        Some(other) => other.to_string(),
    }
}

/// Foreign text without anything that a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// YAML of one value, ending with a newline; enums as manifests write them, without tags.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = Vec::new();
    let mut serializer = serde_yaml_ng::Serializer::new(&mut text);
    singleton_map_recursive::serialize(value, &mut serializer)
        .map_err(|error| Failure::refused(format!("the value has no YAML form: {error}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A list as the API writes it.
#[derive(Serialize)]
struct List<'a, T> {
    items: &'a [T],
}

/// Prints `items` as JSON `{"items":[…]}` or YAML documents; false for a table, which the caller
/// makes.
pub(crate) fn structured<T: Serialize>(
    items: &[T],
    format: Format,
    out: &mut dyn io::Write,
) -> Result<bool, Failure> {
    match format {
        Format::Table => return Ok(false),
        Format::Json => writeln!(out, "{}", json(&List { items })?)?,
        Format::Yaml => {
            for item in items {
                write!(out, "---\n{}", yaml(item)?)?;
            }
        }
    }
    Ok(true)
}

/// Indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::refused(format!("the value has no JSON form: {error}")))
}

/// Microseconds as people write them.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us}us"),
        1000..1_000_000 => format!("{}.{}ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{}s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// How full a link is, behind other words, if it is.
pub(crate) fn full(percent: Option<u8>) -> String {
    percent.map_or_else(String::new, |percent| format!(" {percent} % full"))
}

/// Kilobits a second as people write them.
pub(crate) fn kbit_s(rate: u64) -> String {
    match rate {
        0..1000 => format!("{rate} kbit/s"),
        1000..10_000 => format!("{}.{} Mbit/s", rate / 1000, rate % 1000 / 100),
        _ => format!("{} Mbit/s", rate / 1000),
    }
}

/// How loaded a service is in a site, and what the site gets because of that, in thousandths, as
/// people write them.
pub(crate) fn load(load: Option<u16>, share: Option<u16>) -> Option<String> {
    let percent = |part: u16| format!("{}%", (part + 5) / 10);
    match (load.map(percent), share.map(percent)) {
        (None, None) => None,
        (Some(load), None) => Some(load),
        (Some(load), Some(share)) => Some(format!("{load}, gets {share}")),
        (None, Some(share)) => Some(format!("?, gets {share}")),
    }
}

/// The lines that differ between two texts, with three lines around them, as `diff -u` shows
/// them without its line numbers.
pub(crate) fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut text = String::new();
    if old.len().max(new.len()) > MAX_DIFF_LINES {
        let _ = writeln!(text, "(more than {MAX_DIFF_LINES} lines: they differ)");
        return text;
    }
    let script = script(&old, &new);
    let near = |at: usize| {
        let around = at.saturating_sub(3)..(at + 4).min(script.len());
        script[around].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut gap = false;
    for (at, (mark, line)) in script.iter().enumerate() {
        if near(at) {
            if gap {
                text += "  …\n";
            }
            let _ = writeln!(text, "{mark} {line}");
        }
        gap = !near(at);
    }
    text
}

/// The longest common subsequence, as lines marked ` `, `-` and `+`.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut script = Vec::new();
    while i < old.len() || j < new.len() {
        let down = || common[(i + 1) * width + j];
        if i < old.len() && j < new.len() && old[i] == new[j] {
            script.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || down() >= common[i * width + j + 1]) {
            script.push(('-', old[i]));
            i += 1;
        } else {
            script.push(('+', new[j]));
            j += 1;
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_align_and_tame_foreign_text() {
        let values = [
            json!({"peer": "par.fabric", "up": true}),
            json!({"peer": "x\u{1b}[2J", "families": ["mesh", "vpn"]}),
        ];
        let table = Table::of_values(&values);
        assert_eq!(
            table.lines(),
            [
                "PEER        UP    FAMILIES",
                "par.fabric  true  -",
                "x\u{fffd}[2J       -     mesh,vpn"
            ]
        );
    }

    #[test]
    fn yaml_is_what_manifests_write() {
        let example = include_str!("../../../examples/01-cart/40-cart-acme.yaml");
        for object in api::manifest::parse(example).expect("parses") {
            let text = yaml(&object).expect("YAML");
            assert!(!text.contains('!'), "{text}");
            assert_eq!(api::manifest::parse(&text).expect(&text), [object]);
        }
    }

    #[test]
    fn differences_are_shown_with_their_surroundings() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
        let new = "a\nb\nc\nd\ne\nF\ng\nh\ni\n";
        assert_eq!(
            diff(old, new),
            "  …\n  c\n  d\n  e\n- f\n+ F\n  g\n  h\n  i\n"
        );
        assert_eq!(diff("", "x\n"), "+ x\n");
        assert_eq!(diff("x\n", "x\n"), "");
    }

    #[test]
    fn durations_are_short() {
        for (us, text) in [
            (7, "7us"),
            (5012, "5.0ms"),
            (40_170, "40.1ms"),
            (1_500_000, "1.5s"),
        ] {
            assert_eq!(micros(us), text);
        }
    }
}
