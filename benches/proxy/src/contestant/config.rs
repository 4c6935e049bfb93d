//! The same work in the words of each proxy: route by host to one upstream, keep connections to
//! it, write a record of each request in JSON, count.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use super::{Contestant, HTTP, HTTPS, ORIGIN};

/// Write its configuration; its arguments.
pub(super) fn write(contestant: Contestant, folder: &Path, hosts: u32) -> Result<Vec<String>> {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let (chain, private) = (key.cert.pem(), key.signing_key.serialize_pem());
    let pair = format!("{chain}{private}");
    for (name, text) in [
        ("chain.pem", &chain),
        ("key.pem", &private),
        ("pair.pem", &pair),
    ] {
        fs::write(folder.join(name), text).context("a certificate")?;
    }
    let names: Vec<String> = if hosts > 1 {
        (0..hosts).map(|at| format!("h{at}.example")).collect()
    } else {
        Vec::new()
    };
    let folder_text = folder.to_str().context("a plain path")?;
    let file = |name: &str| format!("{folder_text}/{name}");
    let (name, text, arguments) = match contestant {
        Contestant::Haproxy => {
            let map: String = names.iter().map(|host| format!("{host} b\n")).collect();
            fs::write(folder.join("hosts.map"), map + "localhost b\n")?;
            let arguments = vec!["-f".to_owned(), file("haproxy.cfg")];
            ("haproxy.cfg", haproxy(folder_text), arguments)
        }
        Contestant::Nginx => {
            let arguments = ["-c", &file("nginx.conf"), "-e", &file("error.log")];
            let arguments = arguments.map(str::to_owned).to_vec();
            ("nginx.conf", nginx(folder_text, &names), arguments)
        }
        Contestant::Envoy => {
            let file = file("envoy.json");
            let words = format!("-c {file} --concurrency 1 --disable-hot-restart -l warn");
            let arguments = words.split(' ').map(str::to_owned).collect();
            ("envoy.json", envoy(folder_text, &names), arguments)
        }
        Contestant::Floor => {
            let words = format!("--floor 127.0.0.1:{HTTP} 127.0.0.1:{ORIGIN}");
            let arguments = words.split(' ').map(str::to_owned).collect();
            ("floor.txt", words, arguments)
        }
        Contestant::Sealane => {
            let words = format!(
                "node --state {folder_text}/state --bundle {} --site edge --workers 1",
                file("sealane.yaml")
            );
            let arguments = words.split(' ').map(str::to_owned).collect();
            ("sealane.yaml", sealane(&names, &chain, &private), arguments)
        }
    };
    fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?;
    Ok(arguments)
}

fn haproxy(folder: &str) -> String {
    let record = "{\\\"time\\\":\\\"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]\\\",\\\"peer\\\":\\\"%ci:%cp\\\",\
                  \\\"method\\\":\\\"%HM\\\",\\\"path\\\":\\\"%HP\\\",\\\"protocol\\\":\\\"%HV\\\",\
                  \\\"host\\\":\\\"%[capture.req.hdr(0)]\\\",\\\"status\\\":%ST,\\\"bytes\\\":%B,\
                  \\\"took\\\":%Ta,\\\"backend\\\":\\\"%b\\\",\\\"server\\\":\\\"%s\\\",\\\"state\\\":\\\"%ts\\\"}";
    format!(
        "global
  nbthread 1
  maxconn 4000
  log stdout format raw local0
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  log global
  option forwardfor
  timeout client 60s
  timeout server 60s
  timeout connect 2s
  http-reuse always
frontend f
  bind 127.0.0.1:{HTTP}
  bind 127.0.0.1:{HTTPS} ssl crt {folder}/pair.pem alpn h2,http/1.1
  declare capture request len 64
  http-request capture req.hdr(host) id 0
  log-format \"{record}\"
  use_backend %[req.hdr(host),field(1,:),lower,map({folder}/hosts.map)]
backend b
  server one 127.0.0.1:{ORIGIN}
frontend counters
  bind 127.0.0.1:18099
  stats enable
"
    )
}

fn nginx(folder: &str, names: &[String]) -> String {
    let names = names.join(" ");
    format!(
        "worker_processes 1; daemon off; pid {folder}/nginx.pid; user root;
events {{ worker_connections 4096; }}
http {{
  log_format record escape=json '{{\"time\":\"$time_iso8601\",\"peer\":\"$remote_addr:$remote_port\",\
\"method\":\"$request_method\",\"path\":\"$request_uri\",\"protocol\":\"$server_protocol\",\
\"host\":\"$host\",\"status\":$status,\"bytes\":$body_bytes_sent,\"took\":$request_time,\
\"upstream\":\"$upstream_addr\"}}';
  access_log {folder}/access.log record buffer=64k flush=1s;
  keepalive_requests 1000000000;
  server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  proxy_temp_path {folder}/temp; client_body_temp_path {folder}/body; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream b {{ server 127.0.0.1:{ORIGIN}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{HTTP}; listen 127.0.0.1:{HTTPS} ssl http2;
    ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    server_name localhost {names};
    location / {{
      proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
    location /counters {{ stub_status; }}
  }}
}}
"
    )
}

fn envoy(folder: &str, names: &[String]) -> String {
    let mut hosts = r#"{"name":"one","domains":["localhost","localhost:*"],"routes":[{"match":{"prefix":"/"},"route":{"cluster":"b"}}]}"#.to_owned();
    for name in names {
        // Writing to a string does not fail.
        let _ = write!(
            hosts,
            r#",{{"name":"{name}","domains":["{name}"],"routes":[{{"match":{{"prefix":"/"}},"route":{{"cluster":"b"}}}}]}}"#
        );
    }
    let filter = format!(
        r#"{{"name":"http","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
"stat_prefix":"in","use_remote_address":true,
"access_log":[{{"name":"file","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog","path":"{folder}/access.log",
"log_format":{{"json_format":{{"time":"%START_TIME%","peer":"%DOWNSTREAM_REMOTE_ADDRESS%","method":"%REQ(:METHOD)%","path":"%REQ(:PATH)%","protocol":"%PROTOCOL%","host":"%REQ(:AUTHORITY)%","status":"%RESPONSE_CODE%","bytes_in":"%BYTES_RECEIVED%","bytes_out":"%BYTES_SENT%","took":"%DURATION%","endpoint":"%UPSTREAM_HOST%","service":"%UPSTREAM_CLUSTER%","flags":"%RESPONSE_FLAGS%"}}}}}}}}],
"http_filters":[{{"name":"router","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}}],
"route_config":{{"virtual_hosts":[{hosts}]}}}}}}"#
    );
    let listener = |name: &str, port: u16, tls: &str| {
        format!(
            r#"{{"name":"{name}","address":{{"socket_address":{{"address":"127.0.0.1","port_value":{port}}}}},"filter_chains":[{{"filters":[{filter}]{tls}}}]}}"#
        )
    };
    let tls = format!(
        r#","transport_socket":{{"name":"tls","typed_config":{{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext","common_tls_context":{{"alpn_protocols":["h2","http/1.1"],"tls_certificates":[{{"certificate_chain":{{"filename":"{folder}/chain.pem"}},"private_key":{{"filename":"{folder}/key.pem"}}}}]}}}}}}"#
    );
    let (plain, secure) = (listener("plain", HTTP, ""), listener("secure", HTTPS, &tls));
    format!(
        r#"{{"admin":{{"address":{{"socket_address":{{"address":"127.0.0.1","port_value":18099}}}}}},
"static_resources":{{"listeners":[{plain},{secure}],
"clusters":[{{"name":"b","type":"STATIC","connect_timeout":"2s","load_assignment":{{"cluster_name":"b","endpoints":[{{"lb_endpoints":[{{"endpoint":{{"address":{{"socket_address":{{"address":"127.0.0.1","port_value":{ORIGIN}}}}}}}}}]}}]}}}}]}}}}"#
    )
}

fn sealane(names: &[String], chain: &str, private: &str) -> String {
    let indented = |text: &str| text.replace('\n', "\n    ");
    let (chain, private) = (indented(chain), indented(private));
    let mut text = format!(
        "{{kind: Tenant, metadata: {{name: t}}, spec: {{publicHosts: [localhost, '*.example']}}}}
---
{{kind: Namespace, metadata: {{tenant: t, name: n}}}}
---
kind: Site
metadata: {{name: edge}}
spec:
  role: pop
  nodes:
  - name: n1
    tunnel: {{bind: ['127.0.0.1:17443']}}
    public: {{bind: [127.0.0.1], portMap: {{80: {HTTP}, 443: {HTTPS}}}}}
---
kind: Service
metadata: {{tenant: t, namespace: n, name: s}}
spec: {{port: 80, origins: [{{sites: [edge], addresses: ['127.0.0.1:{ORIGIN}']}}], healthCheck: {{interval: 5s, rise: 1}}}}
---
kind: Certificate
metadata: {{tenant: t, namespace: n, name: c}}
spec:
  hosts: [localhost]
  source: pem
  certificate: |
    {chain}
  privateKey: |
    {private}
---
kind: LoadBalancer
metadata: {{tenant: t, namespace: n, name: one}}
spec:
  hosts: [localhost]
  tls: {{certificates: [c]}}
  advertise: [{{public: {{}}}}]
  routes: [{{backendRefs: [{{name: s}}]}}]
"
    );
    for (at, hosts) in names.chunks(100).enumerate() {
        let hosts = hosts.join(", ");
        let _ = write!(
            text,
            "---
{{kind: LoadBalancer, metadata: {{tenant: t, namespace: n, name: m{at}}}, spec: {{hosts: [{hosts}], advertise: [{{public: {{}}}}], routes: [{{backendRefs: [{{name: s}}]}}]}}}}
"
        );
    }
    text
}
