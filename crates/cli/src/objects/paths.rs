//! `sealane get paths`: the way from each node to each site.

use std::io::Write;

use api::derived::{HopView, PathView};

use crate::{
    admin,
    args::GetArgs,
    client::Client,
    context::Context,
    error::{Exit, Failure},
    text::{self, Table, shown, structured},
    watch,
};

/// A path and where it begins.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Path {
    from: String,
    #[serde(flatten)]
    path: PathView,
}

/// Prints those of one node on this machine, or all that the controller was told of.
pub(super) async fn get(args: &GetArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut client = match args.node_state {
        Some(_) => None,
        None => Some(Client::new(Context::find(&args.connection)?)?),
    };
    watch::poll(args.watch, out, async |out, last: &mut Vec<String>| {
        let mut paths = match &mut client {
            None => of_node(args).await?,
            Some(client) => of_all(client).await?,
        };
        paths.retain(|path| is_wanted(path, args));
        if !structured(&paths, args.output, out)? {
            watch::changed(table(&paths).lines(), last, out)?;
        }
        Ok(())
    })
    .await
}

async fn of_node(args: &GetArgs) -> Result<Vec<Path>, Failure> {
    let value = admin::look("/paths", args).await?;
    let paths: Vec<PathView> = serde_json::from_value(value).map_err(|error| {
        Failure::refused(format!("the node's answer is not understood: {error}"))
    })?;
    let node = args.node_state.iter().filter_map(|state| state.file_name());
    let from: String = node.map(|name| name.to_string_lossy()).collect();
    let path = |path| Path {
        from: from.clone(),
        path,
    };
    Ok(paths.into_iter().map(path).collect())
}

async fn of_all(client: &mut Client) -> Result<Vec<Path>, Failure> {
    let mut all = Vec::new();
    for view in client.sites().await? {
        let paths = view.status.into_iter().flat_map(|status| status.paths);
        all.extend(paths.map(|path| Path {
            from: view.site.clone(),
            path,
        }));
    }
    Ok(all)
}

/// Does it begin or end at the site that is meant, or in the tenant?
fn is_wanted(Path { from, path }: &Path, args: &GetArgs) -> bool {
    let ends = [from.as_str(), path.site.as_str()];
    let has = |wanted: &str, at: usize| {
        ends.iter().any(|end| {
            let mut parts = end.split('.');
            *end == wanted || parts.nth(at) == Some(wanted)
        })
    };
    let named = args.name.as_deref().is_none_or(|name| has(name, 0));
    named
        && args
            .selection
            .tenant()
            .is_none_or(|tenant| has(tenant.as_str(), 1))
}

fn table(paths: &[Path]) -> Table {
    let mut table = Table::new(&["FROM", "TO", "RTT", "HOPS"]);
    for Path { from, path } in paths {
        table.row([
            shown(from),
            shown(&path.site),
            text::micros(path.rtt_us()),
            hops(&path.hops),
        ]);
    }
    table
}

/// Each hop with what was measured: `nyc.fabric 40.1ms backbone 90 % full, factory.acme 5.2ms`.
pub(crate) fn hops(hops: &[HopView]) -> String {
    let hop = |hop: &HopView| {
        let class = hop.class.as_ref();
        let class = class.map_or_else(String::new, |class| format!(" {}", shown(class)));
        let full = text::full(hop.load_percent);
        let rtt = text::micros(hop.rtt_us);
        format!("{} {rtt}{class}{full}", shown(&hop.site))
    };
    hops.iter().map(hop).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_each_hop() {
        let hop = |site: &str, rtt_us, class: Option<&str>| HopView {
            site: site.to_owned(),
            rtt_us,
            class: class.map(str::to_owned),
            load_percent: class.map(|_| 90),
        };
        let path = PathView {
            site: "factory.acme".to_owned(),
            hops: vec![
                hop("nyc.fabric", 40_100, Some("backbone")),
                hop("factory.acme", 5_200, None),
            ],
        };
        assert_eq!(path.over().collect::<Vec<_>>(), ["nyc.fabric"]);
        let from = "par.fabric".to_owned();
        let shown = table(&[Path { from, path }]).to_string();
        assert_eq!(
            shown,
            "FROM        TO            RTT     HOPS\n\
             par.fabric  factory.acme  45.3ms  nyc.fabric 40.1ms backbone 90 % full, factory.acme 5.2ms\n"
        );
    }
}
