//! Programs that nobody here wrote, as `docs/programs` has them, each upgraded under load and taken back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use handover_tests::booted::BootedHost;
use handover_tests::docs::{program, sample, venv};
use handover_tests::fleet::Spec;
use serde::Deserialize;

use crate::site::{STORE, Site, until};

/// Asks for `/` on four connections that are kept, until it is told to end; then says what the answers were.
const CLIENTS: &str = r#"
import collections, http.client, json, sys, threading, time
host, port = sys.argv[1], int(sys.argv[2])
seen, failed, ended, lock = collections.Counter(), [], threading.Event(), threading.Lock()
def client():
    connection = http.client.HTTPConnection(host, port, timeout=15)
    while not ended.is_set():
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read().decode().strip()
            with lock:
                if answer.status == 200: seen[body] += 1
                else: failed.append(f"{answer.status} {body}")
        except Exception as error:
            failed.append(repr(error))
            connection.close()
        time.sleep(0.01)
threads = [threading.Thread(target=client) for _ in range(4)]
for thread in threads: thread.start()
sys.stdin.read()
ended.set()
for thread in threads: thread.join()
json.dump({"seen": seen, "failed": failed}, sys.stdout)
"#;

/// What the clients got.
#[derive(Debug, Deserialize)]
struct Answers {
    seen: BTreeMap<String, u64>,
    failed: Vec<String>,
}

fn clients(host: &BootedHost) -> Child {
    let mut clients = Command::new("python3");
    clients.args(["-c", CLIENTS, &host.address().to_string(), "8080"]);
    clients.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3")
}

/// The sample config, with the addresses of this host and its certificate.
fn fitted(config: &str, host: &BootedHost) -> String {
    let (name, address) = (host.name(), host.address());
    let pki = "/srv/site/pki";
    let listen = format!(
        "env = \"demo\"\nlisten = \"{address}:7101\"\ntls = {{ ca = \"{pki}/ca.pem\", cert = \"{pki}/{name}.pem\", key = \"{pki}/{name}.key\" }}"
    );
    let fitted = config.replace("listen = \"127.0.0.1:7101\"", &listen).replace("127.0.0.1:2379", STORE);
    assert!(fitted.contains(&listen) && fitted.contains(STORE), "the sample has other addresses: {config}");
    fitted
}

/// The service of `docs/programs/{page}.md` goes from one version to the next and back, and no request is lost.
fn goes_there_and_back(page: &str, service: &str, install: impl Fn(&Site, &str)) {
    let Some(site) = Site::start(1) else { return };
    let (host, page) = (site.hosts.host(0), format!("programs/{page}.md"));
    let config = sample(&page, "toml", 0).expect("a config");
    host.put(&format!("/etc/handover/{service}.toml"), &fitted(&config, host)).expect("written");
    let unit = sample(&page, "ini", 0).expect("a unit");
    host.put(&format!("/etc/systemd/system/{service}@.service"), &unit).expect("written");
    for version in ["1.0.0", "1.1.0"] {
        install(&site, &format!("/builds/{service}/{version}"));
    }
    host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    site.begin(service);
    let roll = |version: &str| {
        let spec = Spec { min_serving: 1, shift: &["100%"], soak: "2s", start_deadline: "20s", ..Spec::to(version) };
        let (code, said) = site.roll_text(&spec.text().replace("\"billing\"", &format!("{service:?}")));
        assert_eq!(
            code,
            0,
            "{version}: {said}{}",
            host.journal(&format!("handover-agent@{service}")).unwrap_or_default()
        );
    };
    roll("1.0.0");
    let mut clients = clients(host);
    roll("1.1.0");
    roll("1.0.0");
    drop(clients.stdin.take());
    let answers: Answers =
        serde_json::from_slice(&clients.wait_with_output().expect("their end").stdout).expect("what they saw");
    let (old, new) = (answers.seen.get("1.0.0"), answers.seen.get("1.1.0"));
    assert!(old > Some(&50) && new > Some(&50), "both versions answered: {answers:?}");
    assert_eq!(answers.failed, Vec::<String>::new(), "of {:?}", answers.seen);
    until("the version that was left to be stopped", || {
        site.rows().iter().filter(|row| row["version"].is_string()).count() == 1
    });
}

#[test]
fn caddy_is_upgraded_and_taken_back_under_load() {
    goes_there_and_back("caddy", "caddy", |site, dir| {
        let host = site.hosts.host(0);
        std::fs::copy(program("caddy").expect("caddy"), site.hosts.shared().join("caddy")).expect("copied");
        host.put(&format!("{dir}/Caddyfile"), &sample("programs/caddy.md", "caddyfile", 0).expect("a Caddyfile"))
            .expect("written");
        host.must(&["ln", "-sfn", "/srv/site/caddy", &format!("{dir}/caddy")]).expect("linked");
    });
}

#[test]
fn an_application_under_gunicorn_is_upgraded_and_taken_back_under_load() {
    goes_there_and_back("gunicorn", "shop", |site, dir| {
        let (host, shared) = (site.hosts.host(0), site.hosts.shared());
        program("gunicorn").expect("gunicorn");
        host.put(&format!("{dir}/app.py"), &sample("programs/gunicorn.md", "python", 0).expect("an app"))
            .expect("written");
        copy_package("gunicorn", shared);
        let install = format!(
            "python3 -m venv --without-pip {dir}/venv && cp -r /srv/site/gunicorn {dir}/venv/lib/python3*/site-packages/"
        );
        host.must(&["sh", "-c", &install]).expect("installed");
    });
}

fn copy_package(name: &str, to: &Path) {
    let find = format!("cp -r {}/lib/python3*/site-packages/{name} {}/", venv().display(), to.display());
    assert!(
        Command::new("sh").args(["-c", &find]).status().expect("sh").success(),
        "`tests/run --tools` installs {name}"
    );
}

#[test]
fn a_node_service_is_upgraded_and_taken_back_under_load() {
    goes_there_and_back("node", "front", |site, dir| {
        program("node").expect("node");
        let code = sample("programs/node.md", "javascript", 0).expect("a server");
        site.hosts.host(0).put(&format!("{dir}/server.js"), &code).expect("written");
    });
}
