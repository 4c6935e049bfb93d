//! Every path a file names, written out in full.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Item, UseTree,
    visit::{self, Visit},
};

use super::code::{attributes, for_tests};

/// A path as it would be without `use`, and the line that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// The paths of `file`, those inside macros included, those of its tests left out.
pub(super) fn named(file: &syn::File) -> Vec<Named> {
    let mut imports = Imports::default();
    imports.visit_file(file);
    let mut uses = Uses {
        known: &imports.known,
        named: imports.named.clone(),
    };
    uses.visit_file(file);
    uses.named
}

/// First pass: what `use` brings in, under which name.
#[derive(Default)]
struct Imports {
    known: BTreeMap<String, Vec<String>>,
    named: Vec<Named>,
}

impl Imports {
    fn tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(tree) => self.tree(&tree.tree, &with(tree.ident.to_string())),
            UseTree::Name(tree) => {
                let (name, line) = (tree.ident.to_string(), tree.ident.span().start().line);
                if name == "self" {
                    let alias = before.last().cloned().unwrap_or_default();
                    self.import(alias, before.to_vec(), line);
                } else {
                    self.import(name.clone(), with(name), line);
                }
            }
            UseTree::Rename(tree) => {
                let line = tree.ident.span().start().line;
                let path = if tree.ident == "self" {
                    before.to_vec()
                } else {
                    with(tree.ident.to_string())
                };
                self.import(tree.rename.to_string(), path, line);
            }
            UseTree::Glob(tree) => {
                let line = tree.star_token.spans[0].start().line;
                self.named.push(Named {
                    path: with("*".to_owned()),
                    line,
                });
            }
            UseTree::Group(tree) => {
                for tree in &tree.items {
                    self.tree(tree, before);
                }
            }
        }
    }

    fn import(&mut self, alias: String, path: Vec<String>, line: usize) {
        self.named.push(Named {
            path: path.clone(),
            line,
        });
        self.known.insert(alias, path);
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item(&mut self, item: &'ast Item) {
        if !for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }
}

/// Second pass: what the code names.
struct Uses<'a> {
    known: &'a BTreeMap<String, Vec<String>>,
    named: Vec<Named>,
}

impl Uses<'_> {
    fn name(&mut self, path: Vec<String>, line: usize) {
        let full = match path.split_first() {
            Some((first, rest)) => match self.known.get(first) {
                Some(import) => [import.as_slice(), rest].concat(),
                None => path,
            },
            None => path,
        };
        self.named.push(Named { path: full, line });
    }

    /// Runs of identifiers joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut run: Vec<String> = Vec::new();
        let (mut start, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if run.is_empty() || colons == 2 => {
                    if run.is_empty() {
                        start = ident.span().start().line;
                    }
                    run.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !run.is_empty() => colons += 1,
                TokenTree::Ident(ident) => {
                    self.flush(&mut run, start);
                    (start, colons) = (ident.span().start().line, 0);
                    run.push(ident.to_string());
                }
                TokenTree::Group(group) => {
                    self.flush(&mut run, start);
                    colons = 0;
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.flush(&mut run, start);
                    colons = 0;
                }
            }
        }
        self.flush(&mut run, start);
    }

    fn flush(&mut self, run: &mut Vec<String>, line: usize) {
        if !run.is_empty() {
            self.name(std::mem::take(run), line);
        }
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        let line = path
            .segments
            .first()
            .map_or(0, |segment| segment.ident.span().start().line);
        self.name(segments, line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        self.visit_path(&invocation.path);
        self.tokens(invocation.tokens.clone());
    }
}
