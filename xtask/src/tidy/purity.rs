//! Engines have no task, socket, file, thread, clock, ambient randomness or global.

use syn::{
    Item,
    visit::{self, Visit},
};

use super::{
    Report,
    code::{File, attributes, for_tests, line},
    paths,
};
use crate::tree::Source;

/// What an engine may not name, by the beginning of its full path, and what it is.
const IMPURE: [(&str, &str); 22] = [
    ("getrandom", "ambient randomness"),
    ("hyper", "a socket's user"),
    ("libc", "the system"),
    ("mio", "sockets"),
    ("rand", "ambient randomness"),
    ("runtime", "a shell"),
    ("rustix", "the system"),
    ("socket2", "sockets"),
    (
        "std::collections::hash_map::RandomState",
        "ambient randomness",
    ),
    ("std::env", "a global"),
    ("std::fs", "files"),
    ("std::hash::RandomState", "ambient randomness"),
    ("std::net::TcpListener", "a socket"),
    ("std::net::TcpStream", "a socket"),
    ("std::net::UdpSocket", "a socket"),
    ("std::os", "the system"),
    ("std::process", "processes"),
    ("std::thread", "threads"),
    ("std::time::Instant", "a clock"),
    ("std::time::SystemTime", "a clock"),
    ("thread_local", "a global"),
    ("tokio", "tasks"),
];

/// Types that make a `static` a global variable, by the beginning of their names.
const MUTABLE: [&str; 9] = [
    "ArcSwap", "Atomic", "Cell", "LazyLock", "Mutex", "OnceCell", "OnceLock", "RefCell", "RwLock",
];

pub(super) fn check(source: &Source, file: &File, report: &mut Report) {
    for named in paths::named(&file.syntax) {
        let path = named.path.join("::");
        for (impure, what) in IMPURE {
            let under = path.strip_prefix(impure);
            if under.is_some_and(|rest| rest.is_empty() || rest.starts_with("::")) {
                let (file, line) = (&source.path, named.line);
                let sentence = format!("{file}:{line}: an engine names {impure} ({what})");
                if !report.violations.contains(&sentence) {
                    report.violations.push(sentence);
                }
            }
        }
    }
    Globals {
        path: &source.path,
        report,
    }
    .visit_file(&file.syntax);
}

struct Globals<'a> {
    path: &'a str,
    report: &'a mut Report,
}

impl<'ast> Visit<'ast> for Globals<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        let mut names = Names::default();
        names.visit_type(&item.ty);
        let mutable = |name: &String| MUTABLE.iter().any(|prefix| name.starts_with(prefix));
        if !matches!(item.mutability, syn::StaticMutability::None) || names.0.iter().any(mutable) {
            let (path, line) = (self.path, line(item));
            let sentence = format!("{path}:{line}: an engine has a global, {}", item.ident);
            self.report.violations.push(sentence);
        }
    }
}

/// The identifiers of a type.
#[derive(Default)]
struct Names(Vec<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_ident(&mut self, ident: &'ast proc_macro2::Ident) {
        self.0.push(ident.to_string());
    }
}
