//! Starts the benches, which are programs of their own.

use anyhow::{Context, Result};

use crate::ci::cargo;

/// Builds what `benches/NAME` needs and runs it with the arguments.
///
/// Our program is built too, as it is packaged, if it takes part and no `--sealane FILE` names
/// another.
///
/// # Errors
/// A build or the bench failed.
pub fn bench(name: &str, arguments: &[String]) -> Result<()> {
    let mut ours = Vec::new();
    // The tunnels are measured as a library.
    if name != "tunnel" && builds_sealane(arguments) {
        let build = "build --profile dist --locked -p sealane --bin sealane";
        cargo(&build.split(' ').collect::<Vec<_>>(), &[])?;
        // This program is TARGET/PROFILE/examples/xtask.
        let here = std::env::current_exe().context("the path of this program")?;
        let target = here.ancestors().nth(3).context("a target folder")?;
        let file = target.join("dist/sealane").display().to_string();
        ours = vec!["--sealane".to_owned(), file];
    }
    let run = format!("run --release --locked --quiet -p bench-{name} --example bench-{name} --");
    let words = run
        .split(' ')
        .chain(arguments.iter().chain(&ours).map(String::as_str));
    cargo(&words.collect::<Vec<_>>(), &[])
}

fn builds_sealane(arguments: &[String]) -> bool {
    let value = |name: &str| {
        let mut rest = arguments.iter().skip_while(|word| !word.starts_with(name));
        let word = rest.next()?;
        match word.strip_prefix(name)?.strip_prefix('=') {
            Some(value) => Some(value),
            None => rest.next().map(String::as_str),
        }
    };
    let help = arguments
        .iter()
        .any(|word| word == "--help" || word == "-h");
    let plays = value("--peers").is_none_or(|peers| peers.split(',').any(|peer| peer == "sealane"));
    plays && !help && value("--sealane").is_none()
}

#[cfg(test)]
mod tests {
    use super::builds_sealane;

    #[test]
    fn ours_is_built_if_it_takes_part_and_no_other_is_named() {
        for (line, builds) in [
            ("", true),
            ("--rounds 3", true),
            ("--peers bird,sealane", true),
            ("--peers=sealane", true),
            ("--peers bird,frr", false),
            ("--peers=bird", false),
            ("--sealane x --rounds 1", false),
            ("--sealane=x", false),
            ("--help", false),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(builds_sealane(&words), builds, "{line}");
        }
    }
}
