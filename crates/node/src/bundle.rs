//! `--bundle DIR`: a node from manifests on disk, without any controller.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use api::{CertificateSource, Object, Problem, Spec, manifest, sync::Bundle};
use base::{Revision, SiteName};
use plan::{Ids, Me, World};
use tokio::sync::watch;

use crate::FixedBundle;

/// The most manifest files of a folder.
const MAX_FILES: usize = 1000;

/// Why manifests do not make a node.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error("{0}: cannot be read")]
    File(PathBuf, #[source] io::Error),
    /// A file holds no manifests.
    #[error("{0}")]
    Manifest(PathBuf, #[source] Box<manifest::ManifestError>),
    /// A resource makes no sense beside the others.
    #[error("a resource is refused")]
    Resource(#[source] Box<Problem>),
    /// There is no such site or node.
    #[error("the manifests have no {0}")]
    Missing(String),
    /// Ids collide.
    #[error("ids cannot be derived")]
    Ids(#[source] plan::Collision),
    /// It does not compile.
    #[error("the manifests do not compile")]
    Compile(#[source] Box<plan::CompileError>),
}

/// Read, check, project and try to compile.
pub(crate) fn load(fixed: &FixedBundle) -> Result<(Me, Bundle), BundleError> {
    let (me, bundle) = read(fixed)?;
    plan::compile(&bundle, &me, &plan::Cells::new())
        .map_err(|e| BundleError::Compile(Box::new(e)))?;
    Ok((me, bundle))
}

/// Read, check and project.
fn read(fixed: &FixedBundle) -> Result<(Me, Bundle), BundleError> {
    let mut objects = Vec::new();
    for file in files(&fixed.dir)? {
        let text = fs::read_to_string(&file).map_err(|e| BundleError::File(file.clone(), e))?;
        objects
            .extend(manifest::parse(&text).map_err(|e| BundleError::Manifest(file, Box::new(e)))?);
    }
    let world = checked(objects)?;
    let site = site_name(&world, &fixed.site)?;
    let missing = |what: String| BundleError::Missing(what);
    let (_, spec) = world
        .site(&site)
        .ok_or_else(|| missing(format!("site {site}")))?;
    let node = match &fixed.node {
        Some(node) => spec.nodes.iter().find(|n| n.name == *node),
        None => spec.nodes.first().filter(|_| spec.nodes.len() == 1),
    };
    let node = node.ok_or_else(|| missing(format!("such node in {site}: name one with --node")))?;
    let me = Me {
        site: site.clone(),
        node: node.name.clone(),
    };
    let ids = Ids::derive(&world).map_err(BundleError::Ids)?;
    let projection = plan::project(&world, &ids, &site);
    let bundle = Bundle {
        revision: Revision(1),
        resources: projection.resources,
        sites: projection.sites,
    };
    Ok((me, bundle))
}

/// What `--bundle` says, now and when it is read again; nothing, ever, without it.
#[derive(Clone, Debug)]
pub(crate) struct Fixed(watch::Receiver<Option<Bundle>>);

impl Fixed {
    /// As it is now, and where to say more.
    pub(crate) fn new(bundle: Option<Bundle>) -> (watch::Sender<Option<Bundle>>, Self) {
        let (says, said) = watch::channel(bundle);
        (says, Fixed(said))
    }

    /// What to begin with.
    pub(crate) fn first(&mut self) -> Option<Bundle> {
        self.0.borrow_and_update().clone()
    }

    /// What it says next. Only the newest counts.
    pub(crate) async fn next(&mut self) -> Bundle {
        loop {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(bundle) = self.first() {
                return bundle;
            }
        }
    }
}

/// Read the manifests again at each SIGHUP. What is refused changes nothing, here or by the brain,
/// which compiles.
pub(crate) async fn reload(
    mut hangups: runtime::signal::Reload,
    fixed: FixedBundle,
    says: watch::Sender<Option<Bundle>>,
) {
    let mut revision = says.borrow().as_ref().map_or(0, |bundle| bundle.revision.0);
    loop {
        hangups.next().await;
        let again = fixed.clone();
        let read = tokio::task::spawn_blocking(move || read(&again)).await;
        match read {
            Ok(Ok((_, mut bundle))) => {
                revision += 1;
                bundle.revision = Revision(revision);
                says.send_replace(Some(bundle));
            }
            Ok(Err(error)) => {
                let error = base::Chain(&error).to_string();
                tracing::error!(error, "the manifests are refused; the last good ones serve");
            }
            Err(error) => tracing::error!(%error, "the manifests could not be read"),
        }
    }
}

/// The manifests of a folder, by name; a file by itself.
fn files(dir: &Path) -> Result<Vec<PathBuf>, BundleError> {
    if dir.is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let wrong = |e| BundleError::File(dir.to_owned(), e);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let ending = path.extension().and_then(|e| e.to_str());
        if matches!(ending, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    if files.is_empty() || files.len() > MAX_FILES {
        let text = format!(
            "{} manifests (*.yaml, *.yml, *.json): 1 to {MAX_FILES} are possible",
            files.len()
        );
        return Err(wrong(io::Error::other(text)));
    }
    files.sort();
    Ok(files)
}

/// The world, each resource checked as the API would, in the order in which they depend on each
/// other. Self-signed certificates are made here.
fn checked(mut objects: Vec<Object>) -> Result<World, BundleError> {
    let order = |object: &Object| api::Kind::ALL.iter().position(|kind| *kind == object.kind);
    objects.sort_by_key(|object| (order(object), object.key()));
    let now = runtime::wall();
    let mut world = World::default();
    for mut object in objects {
        plan::check_put(&world, &object, now).map_err(|e| BundleError::Resource(Box::new(e)))?;
        if let Spec::Certificate(spec) = &mut object.spec
            && spec.source == CertificateSource::SelfSigned
        {
            let hosts: Vec<String> = spec.hosts.iter().map(ToString::to_string).collect();
            let year = std::time::Duration::from_secs(365 * 86_400);
            let (chain, key) = pki::self_signed(&hosts, now, year).map_err(|e| {
                BundleError::Resource(Box::new(Problem::new(
                    422,
                    "certificate",
                    base::Chain(&e).to_string(),
                )))
            })?;
            spec.source = CertificateSource::Pem;
            spec.certificate = Some(chain);
            spec.private_key = Some(key);
        }
        world.insert(object);
    }
    Ok(world)
}

fn site_name(world: &World, text: &str) -> Result<SiteName, BundleError> {
    let full = if text.contains('.') {
        text.to_owned()
    } else {
        format!("{text}.{}", SiteName::FABRIC)
    };
    let site: Result<SiteName, _> = full.parse();
    let site = site.ok().filter(|site| world.site(site).is_some());
    site.ok_or_else(|| {
        let known: Vec<String> = world.sites().map(|(name, ..)| name.to_string()).collect();
        BundleError::Missing(format!("site {text:?}; there are: {}", known.join(", ")))
    })
}
