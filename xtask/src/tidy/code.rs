//! Rules for every Rust file: sizes, attributes, `unsafe`.

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::{
    Attribute, Block, Item, Meta, Signature,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::Report;
use crate::tree::{Package, Source};

/// The longest function: reported, refused (lines, signature and braces included).
const FUNCTION: (usize, usize) = (70, 120);

/// The longest file without its tests: reported, refused (lines).
const FILE: (usize, usize) = (800, 1000);

/// The rooms that may say `unsafe`.
const UNSAFE_ROOMS: [&str; 3] = ["lab", "router", "runtime"];

/// A parsed Rust file.
pub(super) struct File {
    pub(super) syntax: syn::File,
}

impl File {
    pub(super) fn parse(source: &Source) -> Result<File> {
        let syntax = syn::parse_file(&source.text)
            .with_context(|| format!("{} could not be parsed; does it compile?", source.path))?;
        Ok(File { syntax })
    }

    /// Neither a `tests.rs` nor under a `tests/` folder of its room.
    pub(super) fn is_production(&self, source: &Source) -> bool {
        let mut parts = source.path.split('/');
        // `tests/kit` and its like are rooms of their own: their first part says nothing.
        parts.next();
        parts.all(|part| part != "tests" && part != "tests.rs" && part != "benches")
    }
}

/// The line where something begins.
pub(super) fn line(of: &impl Spanned) -> usize {
    of.span().start().line
}

/// Is this for tests only (`#[cfg(test)]`)?
pub(super) fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        Meta::List(_) | Meta::Path(_) | Meta::NameValue(_) => false,
    })
}

/// The attributes of an item, of the kinds that hold tests.
#[expect(clippy::wildcard_enum_match_arm, reason = "syn's enum may grow")]
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

pub(super) fn check(package: &Package, source: &Source, file: &File, report: &mut Report) {
    let mut rules = Rules {
        path: &source.path,
        room: &package.name,
        report,
    };
    rules.visit_file(&file.syntax);
    if file.is_production(source) {
        let tests: usize = file
            .syntax
            .items
            .iter()
            .filter(|item| for_tests(attributes(item)))
            .map(|item| lines(item.span()))
            .sum();
        let length = source.text.lines().count() - tests;
        rules.size(1, "this file", length, FILE);
    }
    let opens = ["/src/lib.rs", "/src/main.rs"];
    let essay = source.text.starts_with("//!");
    if opens.iter().any(|end| source.path.ends_with(end)) && !essay {
        rules.wrong(1, "a crate opens with an essay (`//!`)");
    }
}

fn lines(span: Span) -> usize {
    span.end().line + 1 - span.start().line
}

struct Rules<'a> {
    path: &'a str,
    room: &'a str,
    report: &'a mut Report,
}

impl Rules<'_> {
    fn wrong(&mut self, line: usize, sentence: &str) {
        self.report
            .violations
            .push(format!("{}:{line}: {sentence}", self.path));
    }

    fn size(&mut self, line: usize, what: &str, length: usize, (note, limit): (usize, usize)) {
        let sentence = format!("{}:{line}: {what} has {length} lines", self.path);
        if length > limit {
            self.report
                .violations
                .push(format!("{sentence}, more than {limit}"));
        } else if length > note {
            self.report.notes.push(format!("{sentence}, aim at {note}"));
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let start = signature.span().start().line;
        let length = block.span().end().line + 1 - start;
        self.size(start, &format!("fn {}", signature.ident), length, FUNCTION);
        if signature.unsafety.is_some() {
            self.dangerous(start);
        }
    }

    fn dangerous(&mut self, line: usize) {
        if !UNSAFE_ROOMS.contains(&self.room) {
            self.wrong(line, "only runtime, router and lab may say `unsafe`");
        }
    }
}

impl<'ast> Visit<'ast> for Rules<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_unsafe(&mut self, expression: &'ast syn::ExprUnsafe) {
        self.dangerous(line(expression));
        visit::visit_expr_unsafe(self, expression);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.dangerous(line(item));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let path = attribute.path();
        if path.is_ident("allow") {
            self.wrong(
                line(attribute),
                "say `#[expect(…, reason = …)]` instead of `#[allow]`",
            );
        }
        if path.is_ident("ignore") {
            self.wrong(
                line(attribute),
                "a test that is not run is no test (`#[ignore]`)",
            );
        }
        if let Meta::List(list) = &attribute.meta
            && path.is_ident("expect")
            && !list.tokens.to_string().contains("reason")
        {
            self.wrong(line(attribute), "an `#[expect]` gives its reason");
        }
    }
}
