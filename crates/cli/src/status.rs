//! `status`: what is wrong, if anything.

use std::io::Write;

use api::derived::{LinkView, NodeStatus, SiteStatusView};
use base::SiteName;

use crate::{
    args::StatusArgs,
    client::Client,
    context::Context,
    error::{Exit, Failure},
    text::{self, Table, shown, structured},
};

/// Certificates with fewer days left are worth a warning.
const WARN_DAYS: u64 = 30;
const URGENT_DAYS: u64 = 7;

/// `sealane status`.
pub(crate) async fn status(args: &StatusArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut client = Client::new(Context::find(&args.connection)?)?;
    let sites = client.sites().await?;
    let verdict = Verdict::of(&sites);
    if !structured(&sites, args.output, out)? {
        print(&sites, &verdict, out)?;
    }
    Ok(verdict.exit())
}

/// What is wrong and what will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Verdict {
    wrong: Vec<String>,
    warnings: Vec<String>,
}

impl Verdict {
    fn of(sites: &[SiteStatusView]) -> Self {
        let mut verdict = Verdict::default();
        for view in sites {
            verdict.look_at(view);
        }
        verdict
    }

    fn exit(&self) -> Exit {
        if self.wrong.is_empty() {
            Exit::Done
        } else {
            Exit::Refused
        }
    }

    fn look_at(&mut self, view: &SiteStatusView) {
        let who = who(view);
        let Some(status) = &view.status else {
            self.wrong.push(format!(
                "{who} never reported: start `sealane node` there, with a Token for the first time"
            ));
            return;
        };
        if !view.connected {
            self.wrong.push(format!(
                "{who} is not connected since {}: it serves its last good state; is its process \
                 running, and does it reach its PoPs?",
                shown(&status.at)
            ));
        }
        if let Some(reason) = &status.refused {
            self.wrong.push(format!(
                "{who} refused a revision and serves {}: {}",
                status.applied,
                shown(reason)
            ));
        } else if status.applied != view.wanted {
            self.wrong.push(format!(
                "{who} runs revision {}, wanted is {}",
                status.applied, view.wanted
            ));
        }
        for failure in &status.listener_failures {
            self.wrong
                .push(format!("{who} cannot listen: {}", shown(failure)));
        }
        if view.connected && status.links.is_empty() {
            self.wrong.push(format!("{who} has no link to any site"));
        }
        self.certificate(&who, status);
    }

    fn certificate(&mut self, who: &str, status: &NodeStatus) {
        let days = status.certificate_days;
        if days <= URGENT_DAYS {
            self.warnings.push(format!(
                "the certificate of {who} ends in {days} days: it is not renewed, look at its log \
                 now"
            ));
        } else if days <= WARN_DAYS {
            self.warnings.push(format!(
                "the certificate of {who} ends in {days} days: why is it not renewed?"
            ));
        }
    }
}

fn who(view: &SiteStatusView) -> String {
    format!("{} (node {})", shown(&view.site), shown(&view.node))
}

fn print(sites: &[SiteStatusView], verdict: &Verdict, out: &mut dyn Write) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "SITE",
        "NODE",
        "CONNECTED",
        "APPLIED",
        "WANTED",
        "CERT DAYS",
        "HEALTHY",
        "LINKS",
    ]);
    for view in sites {
        let status = view.status.as_ref();
        let of = |cell: &dyn Fn(&NodeStatus) -> String| status.map_or("-".to_owned(), cell);
        table.row([
            shown(&view.site),
            shown(&view.node),
            if view.connected { "yes" } else { "no" }.to_owned(),
            of(&|status| status.applied.to_string()),
            view.wanted.to_string(),
            of(&|status| status.certificate_days.to_string()),
            of(&|status| healthy(&view.site, status)),
            of(&links),
        ]);
    }
    write!(out, "{table}")?;
    writeln!(out)?;
    for line in &verdict.wrong {
        writeln!(out, "wrong: {line}")?;
    }
    for line in &verdict.warnings {
        writeln!(out, "warning: {line}")?;
    }
    if verdict.wrong.is_empty() {
        let nodes = sites.len();
        writeln!(out, "ok: {nodes} nodes run what they should")?;
    }
    Ok(())
}

/// Of the endpoints that concern it: at a PoP all, at a gateway its own (it reaches no other's).
fn healthy(site: &str, status: &NodeStatus) -> String {
    let pop = site.parse::<SiteName>().is_ok_and(|site| site.is_pop());
    let concern = status
        .endpoints
        .iter()
        .filter(|endpoint| pop || endpoint.site == site);
    let (mut good, mut all) = (0_usize, 0_usize);
    for endpoint in concern {
        all += 1;
        good += usize::from(endpoint.reachable && endpoint.health == "healthy");
    }
    format!("{good}/{all}")
}

/// Of a million packets; less is not worth a word.
const SHOWN_LOSS: u32 = 1000;
/// Octets of the least packet that every link of IPv6 takes (RFC 8200 §5): from there on it is worth
/// none.
const ENOUGH_MTU: u16 = 1280;

/// The links of a node, each with its round trip, what it loses and how full it is.
pub(crate) fn links(status: &NodeStatus) -> String {
    // Of two over TLS and QUIC the one that is used, or would be.
    let rank = |link: &LinkView| (link.share > 0, link.transport != "quic");
    let used = |link: &&LinkView| {
        let before = |other: &LinkView| {
            other.peer == link.peer && other.uplink == link.uplink && rank(other) > rank(link)
        };
        !status.links.iter().any(before)
    };
    let each = status.links.iter().filter(used).map(|link| {
        let rtt = link.rtt_us.map_or("?".to_owned(), text::micros);
        let mut words = format!("{} {rtt}", shown(&link.peer));
        if let Some(class) = &link.class {
            words += &format!(" {}", shown(class));
        }
        if let Some(uplink) = &link.uplink {
            words += &format!(" over {}", shown(uplink));
        }
        if link.transport == "quic" {
            words += " by QUIC";
        }
        if link.lost_ppm >= SHOWN_LOSS {
            words += &format!(" {:.1} % lost", f64::from(link.lost_ppm) / 1e4);
        }
        if let Some(capacity) = link.capacity_kbit_s {
            let (sent, capacity) = (text::kbit_s(link.sent_kbit_s), text::kbit_s(capacity));
            words += &format!(" {sent} of {capacity}");
        }
        words += &text::full(link.load_percent);
        if let Some(mtu) = link.mtu.filter(|mtu| *mtu < ENOUGH_MTU) {
            words += &format!(" mtu {mtu}");
        }
        if link.share == 0 {
            words += " rests";
        }
        words
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use api::derived::{EndpointView, LinkView};

    use super::*;

    fn view(change: impl FnOnce(&mut SiteStatusView)) -> SiteStatusView {
        let endpoint = EndpointView {
            service: "cart.shop.acme".to_owned(),
            site: "aws.acme".to_owned(),
            address: "127.0.0.1:80".to_owned(),
            health: "healthy".to_owned(),
            reachable: true,
            rtt_us: None,
            load_per_mille: None,
            share_per_mille: None,
        };
        let mut view = SiteStatusView {
            site: "aws.acme".to_owned(),
            node: "a".to_owned(),
            connected: true,
            wanted: 9,
            status: Some(NodeStatus {
                at: "2026-01-02T03:04:05Z".to_owned(),
                applied: 9,
                certificate_days: 89,
                links: vec![LinkView {
                    peer: "par.fabric".to_owned(),
                    rtt_us: Some(5_100),
                    transport: "tls".to_owned(),
                    uplink: None,
                    lost_ppm: 0,
                    sent_kbit_s: 0,
                    capacity_kbit_s: None,
                    load_percent: None,
                    mtu: None,
                    share: 1000,
                    opened: 3,
                    class: None,
                }],
                endpoints: vec![endpoint],
                ..NodeStatus::default()
            }),
        };
        change(&mut view);
        view
    }

    fn with(change: impl FnOnce(&mut NodeStatus)) -> SiteStatusView {
        view(|view| change(view.status.as_mut().expect("it has one")))
    }

    #[test]
    fn a_healthy_planet_is_a_short_table() {
        let sites = [view(|_| {})];
        let verdict = Verdict::of(&sites);
        let mut out = Vec::new();
        print(&sites, &verdict, &mut out).expect("written");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "SITE      NODE  CONNECTED  APPLIED  WANTED  CERT DAYS  HEALTHY  LINKS\n\
             aws.acme  a     yes        9        9       89         1/1      par.fabric 5.1ms\n\n\
             ok: 1 nodes run what they should\n"
        );
        assert_eq!(verdict.exit(), Exit::Done);
    }

    #[test]
    fn whatever_is_wrong_is_told() {
        for (sites, text) in [
            (view(|v| v.status = None), "never reported"),
            (view(|v| v.connected = false), "is not connected since 2026"),
            (view(|v| v.wanted = 12), "runs revision 9, wanted is 12"),
            (
                with(|s| s.refused = Some("no such service".to_owned())),
                "no such service",
            ),
            (
                with(|s| s.listener_failures = vec!["127.0.0.1:80: taken".to_owned()]),
                "cannot listen",
            ),
            (with(|s| s.links.clear()), "no link"),
        ] {
            let verdict = Verdict::of(&[sites]);
            assert_eq!(verdict.exit(), Exit::Refused, "{text}");
            assert!(
                verdict.wrong.iter().any(|line| line.contains(text)),
                "{text}: {verdict:?}"
            );
        }
    }

    #[test]
    fn certificates_are_warned_about() {
        for (days, warnings) in [(89, 0), (30, 1), (7, 1)] {
            let verdict = Verdict::of(&[with(|s| s.certificate_days = days)]);
            assert_eq!(
                (verdict.warnings.len(), verdict.wrong.len()),
                (warnings, 0),
                "{days}"
            );
        }
    }

    #[test]
    fn of_two_links_over_tls_and_quic_the_one_that_is_used_is_shown() {
        let link = |transport: &str, uplink: &str, share, lost_ppm| LinkView {
            peer: "nyc.fabric".to_owned(),
            rtt_us: Some(5_100),
            transport: transport.to_owned(),
            uplink: Some(uplink.to_owned()),
            lost_ppm,
            sent_kbit_s: 900,
            capacity_kbit_s: (uplink == "lte").then_some(10_200),
            load_percent: (lost_ppm == 11_000).then_some(90),
            mtu: match transport {
                "quic" => Some(1157),
                _ => Some(1500),
            },
            share,
            opened: 0,
            class: (uplink == "lte").then(|| "transit cost 2".to_owned()),
        };
        let status = NodeStatus {
            links: vec![
                link("tls", "cable", 0, 190_000),
                link("quic", "cable", 0, 200_000),
                link("tls", "lte", 0, 12_000),
                link("quic", "lte", 1000, 11_000),
            ],
            ..NodeStatus::default()
        };
        assert_eq!(
            links(&status),
            "nyc.fabric 5.1ms over cable 19.0 % lost rests, nyc.fabric 5.1ms transit cost 2 over \
             lte by QUIC 1.1 % lost 900 kbit/s of 10 Mbit/s 90 % full mtu 1157"
        );
    }
}
