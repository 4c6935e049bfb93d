//! What the live view shows, line by line; pure.

use std::time::Duration;

use lab::load::Figures;

use crate::text::{Table, micros};

/// The fewest lines that events get.
const EVENTS: usize = 5;
/// What stands for the rest of a line that is too long.
const MORE: &str = "…";

/// What is known of a planet.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    /// Which planet it is.
    pub(super) title: String,
    pub(super) lived: Duration,
    pub(super) nodes: Vec<Node>,
    /// Of the probe load, all of it.
    pub(super) probe: Figures,
    /// What it asks.
    pub(super) asks: String,
    /// What is waited for.
    pub(super) waits: Option<String>,
    /// What may be chosen from, if something is to be.
    pub(super) choice: Option<(String, Vec<(char, String)>)>,
    /// When since the start, and what.
    pub(super) events: Vec<(Duration, String)>,
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    /// Its links, with round trips and loss; none if it does not answer.
    pub(super) links: Option<String>,
    /// Requests from its clients in the last second.
    pub(super) rate: Option<u64>,
}

pub(super) const KEYS: &str =
    "keys: e kill an endpoint   l cut a line   c stop the controller   u undo the last   q quit";

/// The screen, of so many columns and lines at most.
pub(super) fn lines(picture: &Picture, (columns, rows): (usize, usize)) -> Vec<String> {
    let mut lines = vec![
        format!("{}   up {}", picture.title, clock(picture.lived)),
        String::new(),
    ];
    let below = below(picture);
    let room = rows.saturating_sub(lines.len() + below.len() + EVENTS + 2);
    let mut nodes = nodes(&picture.nodes);
    if nodes.len() > room {
        let hidden = nodes.len() - room.saturating_sub(1);
        nodes.truncate(room.saturating_sub(1));
        nodes.push(format!("{MORE} {hidden} more; `sealane status` shows all"));
    }
    lines.extend(nodes);
    lines.extend(below);
    lines.push(String::new());
    let room = rows.saturating_sub(lines.len() + 1);
    let first = picture.events.len().saturating_sub(room);
    let events = picture.events.iter().skip(first);
    lines.extend(events.map(|(at, what)| format!("{}  {what}", clock(*at))));
    lines.push(KEYS.to_owned());
    lines.truncate(rows);
    let cut = |line: String| match line.char_indices().nth(columns) {
        None => line,
        Some(_) => {
            let kept = line.chars().take(columns.saturating_sub(1));
            kept.collect::<String>() + MORE
        }
    };
    lines.into_iter().map(cut).collect()
}

fn nodes(nodes: &[Node]) -> Vec<String> {
    let mut table = Table::new(&["SITE", "REQUESTS/S", "LINKS"]);
    for node in nodes {
        let rate = node
            .rate
            .map_or_else(|| "-".to_owned(), |rate| rate.to_string());
        let links = node.links.clone();
        let links = links.unwrap_or_else(|| "does not answer".to_owned());
        table.row([node.name.clone(), rate, links]);
    }
    table.lines()
}

/// What stands below the nodes: the probe, and what is waited for or to be chosen.
fn below(picture: &Picture) -> Vec<String> {
    let Figures { sent, failed, .. } = picture.probe;
    let slowest = micros(picture.probe.slowest_us);
    let mut lines = vec![
        String::new(),
        format!(
            "probe: {}: {sent} asked, {failed} failed, slowest {slowest}",
            picture.asks
        ),
    ];
    if let Some(waits) = &picture.waits {
        lines.push(format!("       {waits}"));
    }
    if let Some((question, choices)) = &picture.choice {
        let choices = choices.iter().map(|(key, what)| format!("{key} {what}"));
        let choices: Vec<String> = choices.collect();
        lines.push(String::new());
        lines.push(format!("{question} (Esc: none)"));
        lines.extend(
            choices
                .chunks(6)
                .map(|some| format!("  {}", some.join("   "))),
        );
    }
    lines
}

fn clock(time: Duration) -> String {
    let s = time.as_secs();
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let node = |name: &str| Node {
            name: name.to_owned(),
            links: Some("nyc.fabric 40.2ms".to_owned()),
            rate: Some(7),
        };
        Picture {
            title: "planet small".to_owned(),
            lived: Duration::from_secs(3_725),
            nodes: vec![
                node("par.fabric"),
                Node {
                    links: None,
                    rate: None,
                    ..node("aws.acme")
                },
            ],
            asks: "50 a second".to_owned(),
            events: (0..40)
                .map(|n| (Duration::from_secs(n), format!("event {n}")))
                .collect(),
            ..Picture::default()
        }
    }

    #[test]
    fn everything_is_there() {
        let shown = lines(&picture(), (80, 24));
        assert_eq!(shown.len(), 24);
        let [title, _, head, par, aws, ..] = shown.as_slice() else {
            panic!("{shown:?}");
        };
        assert_eq!(title, "planet small   up 1:02:05");
        assert_eq!(head, "SITE        REQUESTS/S  LINKS");
        assert_eq!(par, "par.fabric  7           nyc.fabric 40.2ms");
        assert_eq!(aws, "aws.acme    -           does not answer");
        assert_eq!(shown[22], "0:00:39  event 39");
    }

    #[test]
    fn a_small_screen_shows_what_fits() {
        let mut picture = picture();
        picture.nodes = vec![picture.nodes[0].clone(); 30];
        let choices = [('1', "cart-1.aws".to_owned())];
        picture.choice = Some(("which endpoint?".to_owned(), choices.into()));
        for size in [(20, 16), (20, 3), (1, 1)] {
            let shown = lines(&picture, size);
            assert!(shown.len() <= size.1, "{shown:?}");
            assert!(shown.iter().all(|line| line.chars().count() <= size.0));
        }
        let shown = lines(&picture, (60, 20));
        assert!(
            shown.iter().any(|line| line.starts_with("… 26 more")),
            "{shown:?}"
        );
        assert!(
            shown.iter().any(|line| line == "  1 cart-1.aws"),
            "{shown:?}"
        );
    }
}
