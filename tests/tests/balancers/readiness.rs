//! Balancers that ask `/ready`: nginx, Caddy, Traefik and Envoy.

use crate::front::{Front, address, fitted, sample, start};
use crate::stop_first::{all_hosts, fleet, serve};
use handover_tests::fleet::Fleet;

/// As each page says for the hosts.
fn settle(page: &str) -> String {
    sample(page, "toml", 0)
}

fn run(name: &str, page: &str, begin: impl FnOnce(&Fleet) -> Front) {
    let mut fleet = fleet(&settle(page));
    let front = begin(&fleet);
    serve(&fleet);
    all_hosts(&mut fleet, front.listen, name);
}

fn file(fleet: &Fleet, name: &str, text: &str) -> String {
    let path = fleet.dir().join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn nginx_loses_nothing() {
    run("nginx", "nginx.md", |fleet| {
        let (listen, dir) = (address(), fleet.dir().display().to_string());
        let places = [
            ("/run/nginx.pid", format!("{dir}/nginx.pid")),
            ("/var/log/nginx/error.log", format!("{dir}/log/nginx-errors.log")),
        ];
        let text = fitted(&sample("nginx.md", "nginx", 0), fleet, listen, &places);
        let config = file(fleet, "nginx.conf", &text);
        start(fleet, "nginx", &["-c", &config, "-g", "daemon off;"], listen)
    });
}

#[test]
fn caddy_loses_nothing() {
    run("caddy", "caddy.md", |fleet| {
        let listen = address();
        let text = fitted(&sample("caddy.md", "caddyfile", 0), fleet, listen, &[]);
        let config = file(fleet, "Caddyfile", &text);
        start(fleet, "caddy", &["run", "--adapter", "caddyfile", "--config", &config], listen)
    });
}

#[test]
fn traefik_loses_nothing() {
    run("traefik", "traefik.md", |fleet| {
        let listen = address();
        let routes = file(fleet, "billing.yaml", &fitted(&sample("traefik.md", "yaml", 1), fleet, listen, &[]));
        let places = [("/etc/traefik/billing.yaml", routes)];
        let config = file(fleet, "traefik.yaml", &fitted(&sample("traefik.md", "yaml", 0), fleet, listen, &places));
        start(fleet, "traefik", &["--configFile", &config], listen)
    });
}

#[test]
fn envoy_loses_nothing() {
    run("envoy", "envoy.md", |fleet| {
        let listen = address();
        let config = file(fleet, "envoy.yaml", &fitted(&sample("envoy.md", "yaml", 0), fleet, listen, &[]));
        let args = ["-c", &config, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"];
        start(fleet, "envoy", &args, listen)
    });
}
