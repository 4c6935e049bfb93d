//! The binary: every role of Sealane, and the command line.

use std::process::ExitCode;

use cli::{BgpArgs, Command, ControllerArgs, Failure, NodeArgs, NodePart};

// A request is a few dozen allocations, its future among them, which the C library's caches of a
// thread are too small for.
#[global_allocator]
static ALLOCATOR: runtime::Allocator = runtime::Allocator;

fn main() -> ExitCode {
    let done = cli::obey_parent().and_then(|()| match cli::parse() {
        Command::Controller(args) => Ok(controller(args)),
        Command::Node(args) => node(args),
        Command::Bgp(args) => Ok(bgp(args)),
        Command::Verb(verb) => Ok(cli::run(&verb)),
    });
    done.unwrap_or_else(|failure| {
        let code = ExitCode::from(failure.exit().code());
        cli::tell(&[failure]);
        code
    })
}

fn controller(args: ControllerArgs) -> ExitCode {
    let config = controller::Config {
        home: args.state,
        planet: args.planet.to_string(),
        api: args.listen,
        api_hosts: args.api_host,
        fabric: args.fabric,
        advertise: args.fabric_advertise,
        node_certificate_lifetime: args.node_certificate_lifetime,
    };
    cli::serve(|drain| async { Ok(controller::run(config, drain, |_| ()).await?) })
}

fn node(args: NodeArgs) -> Result<ExitCode, Failure> {
    let mut config = node::Config::joined(args.state.clone());
    config.token = args.admission()?;
    config.workers = args.workers.map_or(config.workers, usize::from);
    config.access_log = match args.access_log {
        Some(path) => Some(path).filter(|path| path.as_os_str() != "none"),
        None => config.access_log,
    };
    if let Some(list) = args.access_log_fields {
        let fields = list.parse();
        config.access_fields =
            fields.map_err(|error: String| Failure::usage(error).at("--access-log-fields"))?;
    }
    if let Some(uri) = args.otlp {
        let good = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        if !good || !(0.0..=1.0).contains(&args.otlp_ratio) {
            let what = "a URL with http:// or https:// and a host, and a ratio of 0 to 1";
            return Err(Failure::usage(what.to_owned()).at("--otlp"));
        }
        config.otlp = Some(node::Otlp {
            uri,
            ratio: args.otlp_ratio,
        });
    }
    config.parts = match args.part {
        NodePart::Both => node::Parts::Both,
        NodePart::Control => node::Parts::Control,
        NodePart::Data => node::Parts::Data,
    };
    if let (Some(dir), Some(site)) = (args.bundle, args.site) {
        let fixed = node::FixedBundle {
            dir,
            site,
            node: args.node,
        };
        if args.check {
            return Ok(cli::conclude(node::check(&fixed).map_err(Into::into)));
        }
        config.bundle = Some(fixed);
    }
    config.take_over = args.take_over;
    Ok(cli::serve(|drain| async move {
        Ok(node::run(config, async { drain.draining().await }).await?)
    }))
}

fn bgp(args: BgpArgs) -> ExitCode {
    if args.check {
        return cli::conclude(node::bgp::check(&args.config).map_err(Into::into));
    }
    let config = node::bgp::Config {
        file: args.config,
        state: args.state,
    };
    cli::serve(|drain| async move {
        Ok(node::bgp::run(config, async { drain.draining().await }).await?)
    })
}
