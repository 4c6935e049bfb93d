//! What a path and a query mean.

use std::str::FromStr;

use api::{Kind, ObjectKey, Problem, Scope};
use base::{Name, Revision};

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Health,
    Metrics,
    OpenApi,
    SiteStatus,
    Endpoints,
    One(ObjectKey),
    List(List),
}

/// The objects of a kind: everywhere, in a tenant, or in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub(super) kind: Kind,
    pub(super) tenant: Option<Name>,
    pub(super) namespace: Option<Name>,
}

impl List {
    /// Is the object one of these?
    pub(super) fn holds(&self, key: &ObjectKey) -> bool {
        key.kind == self.kind
            && (self.tenant.is_none() || key.tenant == self.tenant)
            && (self.namespace.is_none() || key.namespace == self.namespace)
    }
}

impl FromStr for Target {
    type Err = Problem;

    fn from_str(path: &str) -> Result<Self, Problem> {
        match path {
            "/healthz" => return Ok(Target::Health),
            "/metrics" => return Ok(Target::Metrics),
            "/api/v1/openapi.json" => return Ok(Target::OpenApi),
            "/api/v1/sitestatus" => return Ok(Target::SiteStatus),
            "/api/v1/endpoints" => return Ok(Target::Endpoints),
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/api/v1/") else {
            return Err(unknown(path));
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let name = |text: &str| text.parse::<Name>().map_err(|_| unknown(path));
        let (kind, tenant, namespace) = match parts.as_slice() {
            [kind] => (kind, None, None),
            ["tenants", tenant, kind] => (kind, Some(name(tenant)?), None),
            ["tenants", tenant, "namespaces", namespace, kind] => {
                (kind, Some(name(tenant)?), Some(name(namespace)?))
            }
            _ => return Ok(Target::One(rest.parse()?)),
        };
        let kind = Kind::ALL.into_iter().find(|k| k.plural() == *kind);
        let kind = kind.ok_or_else(|| unknown(path))?;
        let fits = match kind.scope() {
            Scope::Global => tenant.is_none(),
            Scope::Tenant | Scope::TenantOrGlobal => namespace.is_none(),
            Scope::Namespace => true,
        };
        if fits {
            Ok(Target::List(List {
                kind,
                tenant,
                namespace,
            }))
        } else {
            Err(unknown(path))
        }
    }
}

fn unknown(path: &str) -> Problem {
    let shown: String = path.chars().take(200).collect();
    let title = format!("there is nothing at {shown:?}; GET /api/v1/openapi.json lists every path");
    Problem::new(404, "no-such-path", title)
}

/// The parameters of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) dry_run: bool,
    pub(super) revision: Option<Revision>,
    pub(super) tenant: Option<Name>,
}

impl Query {
    /// Every parameter must be a known one with a good value.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut out = Query::default();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let wrong = |wanted: &str| {
                let shown: String = value.chars().take(80).collect();
                Problem::new(400, "bad-parameter", format!("{key}={shown:?}: {wanted}"))
            };
            let yes_or_no = || match value {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(wrong("write true or false")),
            };
            match key {
                "watch" => out.watch = yes_or_no()?,
                "dryRun" => out.dry_run = yes_or_no()?,
                "revision" => {
                    let revision = value.parse().map_err(|_| wrong("write a revision"))?;
                    out.revision = Some(Revision(revision));
                }
                "tenant" => {
                    out.tenant = Some(value.parse().map_err(|_| wrong("write a tenant's name"))?);
                }
                _ => {
                    let shown: String = key.chars().take(80).collect();
                    let title = format!(
                        "unknown parameter {shown:?}: known are watch, revision, dryRun and tenant"
                    );
                    return Err(Problem::new(400, "unknown-parameter", title));
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_objects_or_lists() {
        for (path, means) in [
            ("/api/v1/tenants/acme", "one tenants/acme"),
            ("/api/v1/tenants", "Tenant None None"),
            ("/api/v1/sites", "Site None None"),
            ("/api/v1/sites/par", "one sites/par"),
            ("/api/v1/services", "Service None None"),
            (
                "/api/v1/tenants/acme/services",
                "Service Some(\"acme\") None",
            ),
            (
                "/api/v1/tenants/acme/sites/aws",
                "one tenants/acme/sites/aws",
            ),
            (
                "/api/v1/tenants/acme/namespaces/shop/services",
                "Service Some(\"acme\") Some(\"shop\")",
            ),
            (
                "/api/v1/tenants/acme/namespaces/shop/services/cart",
                "one tenants/acme/namespaces/shop/services/cart",
            ),
            ("/api/v1/nothing", "404"),
            ("/api/v1/tenants/acme/tenants", "404"),
            ("/api/v1/tenants/a/namespaces/b/sites", "404"),
            ("/api/v1/services/cart", "404"),
            ("/api/v1/", "404"),
            ("/", "404"),
            ("/api/v1/tenants/ACME", "404"),
        ] {
            let got = match path.parse::<Target>() {
                Ok(Target::One(key)) => format!("one {key}"),
                Ok(Target::List(List {
                    kind,
                    tenant,
                    namespace,
                })) => {
                    format!("{kind} {tenant:?} {namespace:?}")
                }
                Ok(other) => format!("{other:?}"),
                Err(problem) => problem.status.to_string(),
            };
            assert_eq!(got, means, "{path}");
        }
    }

    #[test]
    fn parameters_are_strict() {
        let query = Query::parse(Some("watch=true&revision=7")).expect("good");
        assert_eq!((query.watch, query.revision), (true, Some(Revision(7))));
        for bad in ["wach=true", "watch=1", "revision=x", "tenant=A"] {
            assert_eq!(Query::parse(Some(bad)).expect_err(bad).status, 400);
        }
    }
}
