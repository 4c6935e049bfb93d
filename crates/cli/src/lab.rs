//! `sealane lab`: the roles that `up` starts beside Sealane's own, and what can be done to them.

use std::{io::Write, net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use lab::{demo, load, publish, relay, wan};

use crate::{
    admin,
    args::{DemoArgs, LabArgs, LabCommand, Mood, RelayCommand},
    context,
    error::{Exit, Failure},
    text::Table,
    up,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// `sealane lab`.
pub(crate) async fn lab(args: &LabArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let home = || context::home(args.home.as_deref());
    match &args.command {
        LabCommand::Relay(relay) => match (&relay.config, &relay.command) {
            (Some(config), _) => be_relay(config).await,
            (None, Some(command)) => distance(&home()?, command, out),
            (None, None) => Err(Failure::usage("what shall the relay do?")
                .fix("`sealane lab relay --help` says what it can")),
        },
        LabCommand::Distance(command) => distance(&home()?, command, out),
        LabCommand::Demo(demo) => match demo.listen {
            Some(address) => be_demo(demo, address).await,
            None => mood(&home, demo, out).await,
        },
        LabCommand::Restart { name } => restart(&home()?, name, out).await,
        LabCommand::ResetBgp { node, peer } => {
            admin::reset_bgp(node, peer, args.home.as_deref(), out).await
        }
        LabCommand::Wan { config } => be_wan(config).await,
        LabCommand::Publish { config } => be_doors(config).await,
        LabCommand::Load { config } => be_load(config).await,
        LabCommand::Janitor { home, runs } => up::janitor(home, runs).map(|()| Exit::Done),
    }
}

/// Is the relay until SIGINT or SIGTERM.
async fn be_relay(config: &Path) -> Result<Exit, Failure> {
    crate::start_logs()?;
    let told = |error: relay::RelayError| Failure::refused(base::Chain(&error).to_string());
    let relay = relay::Relay::bind(relay::Config::read(config).map_err(told)?).map_err(told)?;
    let pairs = relay.listening().count();
    tracing::info!(pairs, "the relay carries");
    until_told(relay.run()).await
}

/// Is the Internet between namespaces until SIGINT or SIGTERM.
async fn be_wan(config: &Path) -> Result<Exit, Failure> {
    crate::start_logs()?;
    let told = |error: wan::WanError| Failure::refused(base::Chain(&error).to_string());
    let wan = wan::Wan::open(wan::Config::read(config).map_err(told)?).map_err(told)?;
    tracing::info!("packets are carried");
    until_told(async {
        if let Err(error) = wan.run().await {
            tracing::error!(%error, "packets are not carried any more");
        }
    })
    .await
}

/// Is the doors into namespaces until SIGINT or SIGTERM.
async fn be_doors(config: &Path) -> Result<Exit, Failure> {
    crate::start_logs()?;
    let told = |error: publish::PublishError| Failure::refused(base::Chain(&error).to_string());
    let config = publish::Config::read(config).map_err(told)?;
    let doors = publish::Doors::open(&config).map_err(told)?;
    tracing::info!(doors = config.doors.len(), "doors are open");
    until_told(doors.run()).await
}

/// Is a planet's users until SIGINT or SIGTERM.
async fn be_load(config: &Path) -> Result<Exit, Failure> {
    crate::start_logs()?;
    let told = |error: load::LoadError| Failure::refused(base::Chain(&error).to_string());
    let load = load::Load::bind(load::Config::read(config).map_err(told)?).map_err(told)?;
    tracing::info!("requests begin");
    until_told(load.run()).await
}

/// Is a demo endpoint until SIGINT or SIGTERM.
async fn be_demo(args: &DemoArgs, address: SocketAddr) -> Result<Exit, Failure> {
    crate::start_logs()?;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let identity = demo::Identity {
        tenant: text(&args.tenant),
        site: text(&args.site),
        endpoint: text(&args.name),
    };
    let demo = demo::Demo::bind(identity, address)
        .map_err(|error| Failure::refused(base::Chain(&error).to_string()))?;
    tracing::info!(address = %demo.address(), "the demo endpoint answers");
    until_told(demo.run()).await
}

async fn until_told(work: impl Future<Output = ()>) -> Result<Exit, Failure> {
    tokio::select! {
        () = work => Ok(Exit::Done),
        signal = runtime::signal::shutdown() => match signal {
            Ok(_) => Ok(Exit::Done),
            Err(error) => Err(Failure::refused(format!("signals cannot be heard: {error}"))),
        },
    }
}

/// Tells something to what stands between the sites.
fn distance(home: &Path, command: &RelayCommand, out: &mut dyn Write) -> Result<Exit, Failure> {
    let socket = home.join(up::WAN_SOCKET);
    if socket.exists() {
        return tell_wan(&socket, command, out);
    }
    let socket = home.join(up::RELAY_SOCKET);
    let command = match command.clone() {
        RelayCommand::Degrade { .. } | RelayCommand::FlushNat { .. } => {
            return Err(Failure::refused(
                "between these sites stands a relay of connections, which loses no packets",
            )
            .fix("start the planet with `sealane up --net ns`"));
        }
        RelayCommand::Set { pair, rtt } => relay::Command::Set {
            pair,
            rtt_ms: rtt.as_secs_f64() * 1000.0,
        },
        RelayCommand::Cut { pair } => relay::Command::Cut { pair },
        RelayCommand::Stall { pair } => relay::Command::Stall { pair },
        RelayCommand::Heal { pair } => relay::Command::Heal { pair },
        RelayCommand::List => relay::Command::List {},
    };
    let reply = relay::command(&socket, &command).map_err(|error| match &error {
        relay::RelayError::Refused(why) => Failure::refused(why.clone()),
        relay::RelayError::Read { .. }
        | relay::RelayError::Parse { .. }
        | relay::RelayError::Duplicate(_)
        | relay::RelayError::Delay(_)
        | relay::RelayError::Listen { .. }
        | relay::RelayError::Control { .. } => {
            Failure::unreachable(base::Chain(&error).to_string())
                .fix("is the relay running? `sealane lab restart relay` starts it again")
        }
    })?;
    match reply {
        relay::Reply::Ok {} => writeln!(out, "done")?,
        relay::Reply::Error(why) => return Err(Failure::refused(why)),
        relay::Reply::Pairs(pairs) => write!(out, "{}", pair_table(&pairs))?,
    }
    Ok(Exit::Done)
}

/// Tells the Internet between namespaces something.
fn tell_wan(socket: &Path, command: &RelayCommand, out: &mut dyn Write) -> Result<Exit, Failure> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let command = match command.clone() {
        RelayCommand::Set { pair, rtt } => wan::Command::Change {
            line: pair,
            change: wan::Change {
                delay_us: Some(micros(rtt / 2)),
                ..wan::Change::default()
            },
        },
        RelayCommand::Degrade {
            pair,
            delay,
            jitter,
            loss,
            rate,
            mtu,
            no_udp,
        } => wan::Command::Change {
            line: pair,
            change: wan::Change {
                delay_us: delay.map(micros),
                jitter_us: jitter.map(micros),
                loss_ppm: loss,
                rate_kbit: rate,
                mtu,
                no_udp,
            },
        },
        // A wire that is cut says nothing either.
        RelayCommand::Cut { pair } | RelayCommand::Stall { pair } => {
            wan::Command::Cut { line: pair }
        }
        RelayCommand::Heal { pair } => wan::Command::Heal { line: pair },
        RelayCommand::FlushNat { gateway } => wan::Command::FlushNat { place: gateway },
        RelayCommand::List => wan::Command::List {},
    };
    let reply = wan::command(socket, &command).map_err(|error| {
        Failure::unreachable(format!("what carries packets does not answer: {error}"))
            .at(socket.display().to_string())
            .fix("is it running? `sealane lab restart wan` starts it again")
    })?;
    match reply {
        wan::Reply::Ok {} => writeln!(out, "done")?,
        wan::Reply::Error(why) => return Err(Failure::refused(why)),
        wan::Reply::Lines(lines) => write!(out, "{}", line_table(&lines))?,
    }
    Ok(Exit::Done)
}

fn line_table(lines: &[wan::LineStatus]) -> Table {
    let mut table = Table::new(&[
        "LINE", "STATE", "ONE WAY", "JITTER", "LOSS", "RATE", "PACKETS", "LOST",
    ]);
    let ms = |us: u64| format!("{}.{:01}ms", us / 1000, us % 1000 / 100);
    for line in lines {
        let shape = &line.shape;
        let both = |count: fn(&wan::Counts) -> u64| count(&line.there) + count(&line.back);
        let lost = both(|c| c.lost + c.overflowed + c.too_long + c.cut);
        table.row([
            line.name.clone(),
            match (shape.cut, shape.no_udp) {
                (true, _) => "cut",
                (false, true) => "no UDP",
                (false, false) => "open",
            }
            .to_owned(),
            ms(shape.delay_us),
            ms(shape.jitter_us),
            format!(
                "{}.{:02}%",
                shape.loss_ppm / 10_000,
                shape.loss_ppm % 10_000 / 100
            ),
            shape
                .rate_kbit
                .map_or_else(|| "-".to_owned(), |rate| format!("{rate}kbit/s")),
            both(|c| c.packets).to_string(),
            lost.to_string(),
        ]);
    }
    table
}

fn pair_table(pairs: &[relay::PairStatus]) -> Table {
    let mut table = Table::new(&["PAIR", "RTT", "MODE", "CONNECTIONS", "LISTEN", "TARGET"]);
    for pair in pairs {
        let mode = match pair.mode {
            relay::Mode::Open => "open",
            relay::Mode::Cut => "cut",
            relay::Mode::Stall => "stall",
        };
        table.row([
            pair.name.clone(),
            format!("{}ms", pair.rtt_ms),
            mode.to_owned(),
            pair.connections.to_string(),
            pair.listen.to_string(),
            pair.target.to_string(),
        ]);
    }
    table
}

/// Tells a demo endpoint how it feels.
async fn mood(
    home: &dyn Fn() -> Result<std::path::PathBuf, Failure>,
    args: &DemoArgs,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let name = args.endpoint.as_deref().unwrap_or_default();
    let address = match name.parse() {
        Ok(address) => address,
        Err(_) => address_of(&home()?, name)?,
    };
    let body = match args.mood {
        Some(Mood::Sick) => r#"{"sick":true}"#.to_owned(),
        Some(Mood::Slow) => format!(r#"{{"delay_ms":{}}}"#, args.delay_ms.unwrap_or(0)),
        Some(Mood::Failing) => r#"{"failing":true}"#.to_owned(),
        Some(Mood::Well) | None => r#"{"sick":false,"failing":false,"delay_ms":0}"#.to_owned(),
    };
    let told = async {
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        let request = Request::post("/control")
            .header(header::HOST, address.to_string())
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        let response = tokio::select! {
            response = &mut answer => response,
            _ = connection => answer.await,
        };
        response
            .map(|response| response.status())
            .map_err(|e| e.to_string())
    };
    let status = tokio::time::timeout(PATIENCE, told)
        .await
        .unwrap_or_else(|_| Err("no answer within 5 s".to_owned()))
        .map_err(|why| {
            Failure::unreachable(format!("the endpoint does not answer: {why}"))
                .at(address.to_string())
                .fix(format!(
                    "is it running? `sealane lab restart {name}` starts it again"
                ))
        })?;
    if !status.is_success() {
        return Err(
            Failure::refused(format!("the endpoint answered {status}")).at(address.to_string())
        );
    }
    writeln!(out, "done")?;
    Ok(Exit::Done)
}

/// The address of `cart-1.aws`: its place among its site's endpoints.
fn address_of(home: &Path, name: &str) -> Result<SocketAddr, Failure> {
    let path = home.join(up::REPORT);
    let wrong = |why: String| {
        Failure::usage(why)
            .at(path.display().to_string())
            .fix("name an endpoint as ADDRESS:PORT or as `sealane up` does, such as cart-1.aws")
    };
    let bytes = runtime::file::read_limited(&path, 1 << 20)
        .map_err(|error| wrong(format!("the planet is not described: {error}")))?;
    let report: up::Report = serde_json::from_slice(&bytes)
        .map_err(|error| wrong(format!("the planet's description is broken: {error}")))?;
    let unknown = || wrong(format!("there is no endpoint {name:?}"));
    let (endpoint, site) = name.split_once('.').ok_or_else(unknown)?;
    let number = endpoint
        .rsplit_once('-')
        .and_then(|(_, number)| number.parse::<usize>().ok());
    let at = number
        .and_then(|number| number.checked_sub(1))
        .ok_or_else(unknown)?;
    let endpoints = report.apps.iter().flat_map(|app| &app.endpoints);
    let mut here = endpoints.filter(|endpoint| endpoint.site == site);
    here.nth(at)
        .map(|endpoint| endpoint.address)
        .ok_or_else(unknown)
}

async fn restart(home: &Path, name: &str, out: &mut dyn Write) -> Result<Exit, Failure> {
    let socket = home.join(context::UP_SOCKET);
    match up::ask(
        &socket,
        &up::Ask::Restart {
            name: name.to_owned(),
        },
    )
    .await?
    {
        up::Answer::Restarted { pid } => {
            writeln!(out, "{name} was started again (pid {pid})")?;
            Ok(Exit::Done)
        }
        up::Answer::Refused(why) => Err(Failure::refused(
            why.trim_start_matches("error: ").to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_found_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let report = r#"{"startup_ms":1,"home":"h","controller":{"url":"u","ca":"c","token":"t",
            "pid":1},"relay":{"pid":2},"pops":[],"gateways":[],"apps":[{"host":"a","tenant":"acme",
            "endpoints":[{"site":"aws","address":"127.0.0.1:1","pid":3},
                         {"site":"factory","address":"127.0.0.1:2","pid":4},
                         {"site":"aws","address":"127.0.0.1:3","pid":5}]}]}"#;
        std::fs::write(folder.path().join(up::REPORT), report).expect("written");
        for (name, port) in [
            ("cart-1.aws", Some(1)),
            ("cart-2.aws", Some(3)),
            ("cart-1.factory", Some(2)),
            ("cart-0.aws", None),
            ("cart-3.aws", None),
            ("cart-1.nowhere", None),
            ("cart", None),
        ] {
            let found = address_of(folder.path(), name)
                .ok()
                .map(|address| address.port());
            assert_eq!(found, port, "{name}");
        }
    }
}
