//! What works with whom: outcomes of the cells, and the table made of them.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use crate::daemon::Kind;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// IPv4 unicast over eBGP.
    Ipv4,
    /// IPv6 unicast over eBGP.
    Ipv6,
    /// VPN-IPv4 through a reflector.
    Vpnv4,
    /// VPN-IPv6 through a reflector.
    Vpnv6,
    /// Reflection, with an attribute nobody knows.
    Reflection,
    /// Several paths both ways.
    AddPath,
    /// Route refresh both ways.
    Refresh,
    /// Messages of more than 4096 octets both ways.
    Extended,
    /// TCP MD5.
    Md5,
    /// Restarts without a withdrawal.
    Graceful,
    /// A dead path ends the session.
    Bfd,
    /// FlowSpec for IPv4 and IPv6.
    Flowspec,
    /// Route target constraint.
    Targets,
}

/// What a daemon has of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// All that the row tests.
    Whole,
    /// Less, and what.
    Part(&'static str),
    /// Nothing, and why.
    Nothing(&'static str),
}

impl Row {
    /// All rows, in the table's order.
    pub const ALL: [Row; 13] = [
        Row::Ipv4,
        Row::Ipv6,
        Row::Vpnv4,
        Row::Vpnv6,
        Row::Reflection,
        Row::AddPath,
        Row::Refresh,
        Row::Extended,
        Row::Md5,
        Row::Graceful,
        Row::Bfd,
        Row::Flowspec,
        Row::Targets,
    ];

    /// The row's title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Row::Ipv4 => "IPv4 unicast, eBGP",
            Row::Ipv6 => "IPv6 unicast, eBGP",
            Row::Vpnv4 => "VPNv4, reflected",
            Row::Vpnv6 => "VPNv6, reflected",
            Row::Reflection => "Route reflection, unknown attribute passed on",
            Row::AddPath => "Add-path, both ways",
            Row::Refresh => "Route refresh, both ways",
            Row::Extended => "Extended messages, both ways",
            Row::Md5 => "TCP MD5",
            Row::Graceful => "Graceful restart of either end, nothing withdrawn",
            Row::Bfd => "BFD: a path that dies ends the session",
            Row::Flowspec => "FlowSpec, IPv4 and IPv6",
            Row::Targets => "Route target constraint",
        }
    }

    /// What a stock daemon, in the version of the table, has of this row.
    #[must_use]
    pub fn support(self, kind: Kind) -> Support {
        match (self, kind) {
            (Row::Vpnv4 | Row::Vpnv6, Kind::Openbgpd) => {
                Support::Part("receives; misreads withdrawals, originates on OpenBSD only")
            }
            (Row::Refresh, Kind::Gobgp) => Support::Part("answers, never asks"),
            (Row::Refresh, Kind::Frr) => {
                Support::Part("answers whoever knows graceful restart, ignores others")
            }
            (Row::Refresh, Kind::Openbgpd) => {
                Support::Part("asks, but takes no request: \"not negotiated\"")
            }
            (Row::Extended, Kind::Gobgp | Kind::Openbgpd) => {
                Support::Nothing("not in this version")
            }
            (Row::Graceful, Kind::Openbgpd) => {
                Support::Part("keeps ours; never says that it kept its own")
            }
            (Row::Bfd, Kind::Frr) => Support::Nothing("through zebra, which does not run here"),
            (Row::Bfd, Kind::Gobgp | Kind::Openbgpd) => Support::Nothing("not in this version"),
            (Row::Flowspec, Kind::Frr) => Support::Part("receives and passes on, originates none"),
            (Row::Flowspec, Kind::Openbgpd) => Support::Nothing("not in this version"),
            (Row::Targets, Kind::Bird | Kind::Frr | Kind::Openbgpd) => {
                Support::Nothing("not in this version")
            }
            (_, Kind::Sealane | Kind::Bird | Kind::Frr | Kind::Gobgp | Kind::Openbgpd) => {
                Support::Whole
            }
        }
    }

    /// Whether a daemon can originate what this row is about.
    #[must_use]
    pub fn originates(self, kind: Kind) -> bool {
        match self {
            Row::Vpnv4 | Row::Vpnv6 => kind != Kind::Openbgpd,
            Row::Flowspec => matches!(kind, Kind::Bird | Kind::Gobgp),
            Row::Ipv4
            | Row::Ipv6
            | Row::Reflection
            | Row::AddPath
            | Row::Refresh
            | Row::Extended
            | Row::Md5
            | Row::Graceful
            | Row::Bfd
            | Row::Targets => true,
        }
    }
}

/// How a cell ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As promised.
    Works,
    /// Not as promised, and what was seen.
    Fails(String),
    /// Not tried, and what is missing.
    Skipped(String),
}

/// The outcomes of a run; each cell runs once, whoever asks first.
#[derive(Default)]
pub struct Matrix {
    cells: Mutex<BTreeMap<(Row, Kind), Cell>>,
}

/// Filled by whoever asks first; the others wait for it.
type Cell = Arc<OnceLock<Outcome>>;

impl Matrix {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Matrix {
            cells: Mutex::new(BTreeMap::new()),
        }
    }

    /// How a cell ended: runs it, or waits for who already does.
    pub fn outcome(
        &self,
        row: Row,
        kind: Kind,
        run: impl FnOnce() -> Result<(), String>,
    ) -> Outcome {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry((row, kind)).or_default())
        };
        let ended = cell.get_or_init(|| match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => Outcome::Works,
            Ok(Err(missing)) => Outcome::Skipped(missing),
            Err(panic) => Outcome::Fails(said(panic.as_ref())),
        });
        ended.clone()
    }

    /// The paper: which daemons, and the table. `outcome` gives each cell's.
    #[must_use]
    pub fn paper(
        versions: &[(Kind, String)],
        mut outcome: impl FnMut(Row, Kind) -> Outcome,
    ) -> String {
        let mut text = "# Interoperation\n\n\
            What `cargo test -p interop` tries between `sealane bgp` and stock daemons, \
            each in its own network namespace, and how it ended. The test writes this table and \
            fails when it differs.\n\n| |"
            .to_owned();
        for (kind, version) in versions {
            write!(text, " {} {version} |", kind.name()).expect("text");
        }
        text += "\n|---|";
        text += &"---|".repeat(versions.len());
        for row in Row::ALL {
            write!(text, "\n| {} |", row.title()).expect("text");
            for (kind, _) in versions {
                write!(text, " {} |", entry(row, *kind, &mut outcome)).expect("text");
            }
        }
        text + "\n"
    }
}

fn entry(row: Row, kind: Kind, outcome: &mut impl FnMut(Row, Kind) -> Outcome) -> String {
    let support = row.support(kind);
    if let Support::Nothing(why) = support {
        return format!("– ({why})");
    }
    match (outcome(row, kind), support) {
        (Outcome::Works, Support::Part(what)) => format!("yes ({what})"),
        (Outcome::Works, Support::Whole | Support::Nothing(_)) => "yes".to_owned(),
        (Outcome::Fails(_), _) => "**no**".to_owned(),
        (Outcome::Skipped(_), _) => "not tried".to_owned(),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Says that something was skipped, also when the test runner captures output.
///
/// # Panics
/// With `SEALANE_REQUIRE=all`, where nothing may be skipped.
pub fn require(what: &str, missing: &str) {
    let line = format!("skipped: {what}: {missing}\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
    let all = std::env::var_os("SEALANE_REQUIRE").is_some_and(|value| value == "all");
    assert!(!all, "SEALANE_REQUIRE=all, and yet {}", line.trim_end());
}
