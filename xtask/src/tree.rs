//! The working tree as the rules see it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 3] = ["target", ".git", "node_modules"];

/// The repository: its packages and its text files.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The members of the workspace.
    pub packages: Vec<Package>,
    /// Every text file, sorted by path.
    pub sources: Vec<Source>,
}

/// A member of the workspace.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Its name; for our rooms also its folder.
    pub name: String,
    /// Its folder, relative to the root, such as `crates/bgp`.
    pub folder: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    /// How many binaries it has.
    pub binaries: usize,
}

/// One dependency of a package.
#[derive(Clone, Debug, Default)]
pub struct Dependency {
    /// The package depended on.
    pub name: String,
    /// A member of this workspace?
    pub ours: bool,
    /// For tests only?
    pub dev: bool,
}

/// One text file.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its path, relative to the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

impl Tree {
    /// Reads the working tree this program was built in.
    ///
    /// # Errors
    /// `cargo metadata` fails, or a file cannot be read.
    pub fn read() -> Result<Tree> {
        let root = root();
        let mut sources = Vec::new();
        walk(&root, &root, &mut sources)?;
        sources.sort_by(|a: &Source, b| a.path.cmp(&b.path));
        Ok(Tree {
            packages: packages(&root)?,
            sources,
        })
    }

    /// The text of one file.
    ///
    /// # Errors
    /// There is no such file.
    pub fn text(&self, path: &str) -> Result<&str> {
        let found = self.sources.iter().find(|source| source.path == path);
        found
            .map(|source| source.text.as_str())
            .with_context(|| format!("{path} is missing"))
    }

    /// Rust files with the package they belong to.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&Package, &Source)> {
        self.sources
            .iter()
            .filter(|source| source.path.ends_with(".rs"))
            .filter_map(|source| {
                let owns = |package: &&Package| {
                    source
                        .path
                        .strip_prefix(&package.folder)
                        .is_some_and(|rest| rest.starts_with('/'))
                };
                self.packages
                    .iter()
                    .find(owns)
                    .map(|package| (package, source))
            })
    }
}

/// Symbolic links are not followed; files that are not UTF-8 are not text.
fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if !FOREIGN.iter().any(|foreign| entry.file_name() == *foreign) {
                walk(root, &path, sources)?;
            }
        } else if kind.is_file() {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            if let (Ok(text), Ok(relative)) = (String::from_utf8(bytes), path.strip_prefix(root)) {
                sources.push(Source {
                    path: relative.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    Ok(())
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root)
        .output()
        .context("cargo metadata could not be started")?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    list(&metadata["packages"])
        .map(|package| self::package(root, package))
        .collect()
}

fn package(root: &Path, package: &Value) -> Result<Package> {
    let manifest = Path::new(package["manifest_path"].as_str().context("manifest_path")?);
    let folder = manifest.parent().context("a manifest lies in a folder")?;
    let folder = folder
        .strip_prefix(root)
        .context("a member lies in the repository")?;
    let dependencies = list(&package["dependencies"]).map(|dependency| {
        Ok(Dependency {
            name: dependency["name"].as_str().context("name")?.to_owned(),
            ours: dependency["path"].is_string(),
            dev: dependency["kind"] == "dev",
        })
    });
    let is_binary = |target: &&Value| list(&target["kind"]).any(|kind| kind == "bin");
    Ok(Package {
        name: package["name"].as_str().context("name")?.to_owned(),
        folder: folder.to_string_lossy().into_owned(),
        dependencies: dependencies.collect::<Result<_>>()?,
        binaries: list(&package["targets"]).filter(is_binary).count(),
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
