//! The binary: every role of Sealane, and the command line.

use std::process::ExitCode;

use cli::{Command, ControllerArgs};

fn main() -> ExitCode {
    if let Err(failure) = cli::obey_parent() {
        cli::tell(&[failure]);
        return ExitCode::FAILURE;
    }
    match cli::parse() {
        Command::Controller(args) => controller(args),
        Command::Node(_) => ExitCode::FAILURE,
        Command::Verb(verb) => cli::run(&verb),
    }
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
