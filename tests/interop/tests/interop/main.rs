//! Our speaker against each stock daemon, row by row, and the table of it in `docs/interop.md`.

mod dissect;
mod hops;
mod rows;
mod stage;

use std::{fs, path::PathBuf};

use interop::{Kind, Lab, Matrix, Outcome, Row, Support, require};

/// What ran, once each.
static MATRIX: Matrix = Matrix::new();

/// What a cell needs of this machine.
fn ready(row: Row, kind: Kind) -> Result<(), String> {
    let speaker = Kind::speaker();
    if let Support::Nothing(why) | Support::Part(why) = row.support(speaker) {
        return Err(format!("{} plays the speaker: {why}", speaker.name()));
    }
    for daemon in [speaker, kind] {
        daemon.version()?;
        if daemon == Kind::Openbgpd && !rustix::process::geteuid().is_root() {
            return Err("OpenBGPD changes its user, which takes root".to_owned());
        }
    }
    Lab::new(&[], &[]).map(drop)
}

fn outcome(row: Row, kind: Kind) -> Outcome {
    MATRIX.outcome(row, kind, || {
        ready(row, kind)?;
        match row {
            Row::Ipv4 => rows::unicast(kind, false),
            Row::Ipv6 => rows::unicast(kind, true),
            Row::Vpnv4 => rows::vpn(kind, false),
            Row::Vpnv6 => rows::vpn(kind, true),
            Row::Reflection => rows::reflection(kind),
            Row::AddPath => rows::add_path(kind),
            Row::Refresh => rows::refresh(kind),
            Row::Extended => rows::extended(kind),
            Row::Md5 => rows::md5(kind),
            Row::Graceful => rows::graceful(kind),
            Row::Bfd => rows::bfd(kind),
            Row::Flowspec => rows::flowspec(kind),
            Row::Targets => rows::targets(kind),
        }
        Ok(())
    })
}

/// One test: runs its cell, or takes the outcome of whoever did.
fn cell(row: Row, kind: Kind) {
    match outcome(row, kind) {
        Outcome::Works => {}
        Outcome::Fails(how) => panic!("{}: {}: {how}", row.title(), kind.name()),
        Outcome::Skipped(missing) => require(row.title(), &missing),
    }
}

macro_rules! cells {
    ($($daemon:ident = $kind:ident { $($test:ident = $row:ident),* $(,)? })*) => {
        $(mod $daemon {
            $(#[test]
            fn $test() {
                super::cell(interop::Row::$row, interop::Kind::$kind);
            })*
        })*
    };
}

cells! {
    bird = Bird {
        ipv4 = Ipv4, ipv6 = Ipv6, vpnv4 = Vpnv4, vpnv6 = Vpnv6, reflection = Reflection,
        add_path = AddPath, refresh = Refresh, extended = Extended, md5 = Md5,
        graceful = Graceful, bfd = Bfd, flowspec = Flowspec,
    }
    frr = Frr {
        ipv4 = Ipv4, ipv6 = Ipv6, vpnv4 = Vpnv4, vpnv6 = Vpnv6, reflection = Reflection,
        add_path = AddPath, refresh = Refresh, extended = Extended, md5 = Md5,
        graceful = Graceful, flowspec = Flowspec,
    }
    gobgp = Gobgp {
        ipv4 = Ipv4, ipv6 = Ipv6, vpnv4 = Vpnv4, vpnv6 = Vpnv6, reflection = Reflection,
        add_path = AddPath, refresh = Refresh, md5 = Md5, graceful = Graceful,
        flowspec = Flowspec, targets = Targets,
    }
    openbgpd = Openbgpd {
        ipv4 = Ipv4, ipv6 = Ipv6, vpnv4 = Vpnv4, vpnv6 = Vpnv6, reflection = Reflection,
        add_path = AddPath, refresh = Refresh, md5 = Md5, graceful = Graceful,
    }
}

/// Every cell of the table, with whoever is asking for it too.
#[test]
fn the_table_is_what_happened() {
    let mut versions = Vec::new();
    for kind in Kind::STOCK {
        match kind.version() {
            Ok(version) => versions.push((kind, version)),
            Err(missing) => return require("the table", &missing),
        }
    }
    let mut skipped = Vec::new();
    let paper = Matrix::paper(&versions, |row, kind| {
        let outcome = outcome(row, kind);
        if let Outcome::Skipped(missing) = &outcome {
            skipped.push(missing.clone());
        }
        outcome
    });
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let written = std::env::current_exe().expect("this test");
    let target = written.ancestors().nth(2).expect("cargo's folder");
    let name = Kind::speaker().name().to_lowercase();
    let file = target.join(format!("interop-{name}.md"));
    fs::write(&file, &paper).expect("cargo's folder is ours");
    if let Some(missing) = skipped.first() {
        return require("the table", missing);
    }
    if Kind::speaker() == Kind::Sealane {
        let kept = fs::read_to_string(root.join("docs/interop.md")).expect("docs/interop.md");
        let file = file.display();
        assert_eq!(paper, kept, "copy {file} to docs/interop.md if it is right");
    }
}
