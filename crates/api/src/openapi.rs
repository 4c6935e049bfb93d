//! The OpenAPI 3.1 document, generated from the types.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    Kind, Metadata, Problem, Scope, Status,
    derived::SiteStatusView,
    kinds::{
        BgpPeerSpec, CertificateSpec, LinkSpec, LoadBalancerSpec, NamespaceSpec, ServicePolicySpec,
        ServiceSpec, SiteSpec, TenantSpec, TokenSpec,
    },
};

/// The document as JSON.
#[must_use]
pub fn document() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut paths = serde_json::Map::new();
    let metadata = generator.subschema_for::<Metadata>();
    let status = generator.subschema_for::<Status>();
    let problem = generator.subschema_for::<Problem>();
    let site_status = generator.subschema_for::<SiteStatusView>();
    let mut schemas = serde_json::Map::new();
    for kind in Kind::ALL {
        let spec = spec_schema(&mut generator, kind);
        schemas.insert(
            kind.as_str().to_owned(),
            json!({
                "type": "object",
                "required": ["kind", "metadata", "spec"],
                "additionalProperties": false,
                "properties": {
                    "kind": { "const": kind.as_str() },
                    "metadata": metadata, "spec": spec, "status": status,
                },
            }),
        );
        for collection in collections(kind) {
            add_paths(&mut paths, kind, &collection, &json!(problem));
        }
    }
    paths.insert(
        "/api/v1/sitestatus".to_owned(),
        json!({ "get": {
            "summary": "What every node said last, and whether it lags",
            "responses": { "200": { "description": "A list", "content": { "application/json": {
                "schema": { "type": "object", "properties": {
                    "items": { "type": "array", "items": site_status } } } } } } },
        } }),
    );
    for (name, schema) in generator.take_definitions(true) {
        schemas.insert(name, schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Sealane", "version": "v1", "license": { "name": "Apache-2.0" } },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas,
        },
    })
}

fn collections(kind: Kind) -> Vec<String> {
    let plural = kind.plural();
    let global = format!("/api/v1/{plural}");
    let tenant = format!("/api/v1/tenants/{{tenant}}/{plural}");
    match kind.scope() {
        Scope::Global => vec![global],
        Scope::Tenant => vec![tenant],
        Scope::TenantOrGlobal => vec![global, tenant],
        Scope::Namespace => {
            vec![format!(
                "/api/v1/tenants/{{tenant}}/namespaces/{{namespace}}/{plural}"
            )]
        }
    }
}

fn add_paths(
    paths: &mut serde_json::Map<String, Value>,
    kind: Kind,
    collection: &str,
    problem: &Value,
) {
    let object = json!({ "$ref": format!("#/components/schemas/{kind}") });
    let body = json!({ "content": { "application/json": { "schema": object } } });
    let failed = json!({ "description": "What is wrong, where, and what to do",
        "content": { (Problem::MEDIA_TYPE): { "schema": problem } } });
    let answer = |description: &str| {
        json!({ "description": description,
            "content": { "application/json": { "schema": object } } })
    };
    let list = json!({ "description": "The objects, and the revision they were read at",
        "content": { "application/json": { "schema": { "type": "object", "properties": {
            "items": { "type": "array", "items": object },
            "revision": { "type": "integer" } } } },
            "text/event-stream": {} } });
    paths.insert(
        collection.to_owned(),
        json!({ "get": {
            "summary": format!("List every {kind}; with ?watch=true[&revision=R] a stream of changes"),
            "parameters": [
                { "name": "watch", "in": "query", "schema": { "type": "boolean" } },
                { "name": "revision", "in": "query", "schema": { "type": "integer" } },
            ],
            "responses": { "200": list, "default": failed },
        } }),
    );
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "get": { "summary": format!("Read one {kind}"),
                "responses": { "200": answer("The object"), "default": failed } },
            "put": { "summary": format!("Create or replace one {kind}; metadata.revision is the state it was based on"),
                "parameters": [{ "name": "dryRun", "in": "query", "schema": { "type": "boolean" } }],
                "requestBody": body,
                "responses": { "200": answer("Replaced, or unchanged"), "201": answer("Created"), "default": failed } },
            "delete": { "summary": format!("Delete one {kind}"),
                "responses": { "204": { "description": "Deleted" }, "default": failed } },
        }),
    );
}

fn spec_schema(generator: &mut SchemaGenerator, kind: Kind) -> schemars::Schema {
    match kind {
        Kind::Tenant => generator.subschema_for::<TenantSpec>(),
        Kind::Namespace => generator.subschema_for::<NamespaceSpec>(),
        Kind::Token => generator.subschema_for::<TokenSpec>(),
        Kind::Site => generator.subschema_for::<SiteSpec>(),
        Kind::ServicePolicy => generator.subschema_for::<ServicePolicySpec>(),
        Kind::Service => generator.subschema_for::<ServiceSpec>(),
        Kind::LoadBalancer => generator.subschema_for::<LoadBalancerSpec>(),
        Kind::BgpPeer => generator.subschema_for::<BgpPeerSpec>(),
        Kind::Link => generator.subschema_for::<LinkSpec>(),
        Kind::Certificate => generator.subschema_for::<CertificateSpec>(),
    }
}

#[cfg(test)]
mod tests;
