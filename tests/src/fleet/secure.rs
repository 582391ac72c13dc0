//! A fleet with mutual TLS everywhere: a three-member etcd with roles, and our own gRPC.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use handover_proto::ids::Env;
use handover_proto::peer::{PeerName, Role};
use handover_tls::TlsFiles;

use super::Binaries;
use crate::cluster::Cluster;
use crate::pki::{Pki, Subject};

/// What only such a fleet has.
pub struct Secure {
    /// Who signs.
    pub pki: Pki,
    /// The store.
    pub cluster: Cluster,
    env: Env,
    coordinator: TlsFiles,
    operator: TlsFiles,
}

impl Secure {
    /// Starts the members, and sets up the roles for billing with `handover store setup --apply`.
    pub(super) fn start(dir: &Path, etcd: &Path, env: &str, binaries: &Binaries) -> Result<Self> {
        let pki = Pki::new(&dir.join("pki"))?;
        let cluster = Cluster::start(etcd, Some(&pki))?;
        let root = pki.issue("root", &Subject::named("root"))?;
        let env: Env = env.parse()?;
        let issue = |file: &str, user: &str, role| {
            let user = Subject::named(&format!("handover.{env}.{user}"));
            pki.issue(file, &user.uri(PeerName::new(&env, role)))
        };
        let coordinator = issue("coordinator", "coordinator", Role::Coordinator)?;
        let operator = issue("alice", "operator", Role::Operator("alice".parse()?))?;
        let secure = Self { pki, cluster, env, coordinator, operator };
        let mut setup = Command::new(binaries.path("handover"));
        setup.args(["--env", secure.env.as_str(), "--store", &secure.cluster.endpoints().join(",")]);
        setup.arg("--store-ca").arg(root.ca).arg("--store-cert").arg(root.cert).arg("--store-key").arg(root.key);
        let done = setup.args(["store", "setup", "billing", "--apply"]).output().context("cannot run handover")?;
        ensure!(done.status.success(), "store setup: {}", String::from_utf8_lossy(&done.stderr));
        Ok(secure)
    }

    /// A certificate with which somebody is known to etcd and to our own processes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn issue(&self, file: &str, user: &str, role: Role) -> Result<TlsFiles> {
        self.pki.issue(file, &Subject::named(user).uri(PeerName::new(&self.env, role)))
    }

    /// The lines of an agent's config.
    pub(super) fn of_agent(&self, name: &str) -> Result<(String, String)> {
        let user = format!("handover.{}.billing.agent", self.env);
        let files = self.issue(name, &user, Role::Agent(name.parse()?))?;
        let three = format!("ca = {:?}, cert = {:?}, key = {:?}", files.ca, files.cert, files.key);
        let store = format!("{{ endpoints = {:?}, {three} }}", self.cluster.endpoints());
        Ok((store, format!("tls = {{ {three} }}")))
    }

    /// The coordinators' variables.
    pub fn of_coordinator(&self) -> Vec<(&'static str, String)> {
        variables(&self.coordinator)
    }

    /// Those of the operator alice.
    pub fn of_operator(&self) -> Vec<(&'static str, String)> {
        variables(&self.operator)
    }
}

/// The variables that a coordinator, or a command line, is started with.
pub fn variables(files: &TlsFiles) -> Vec<(&'static str, String)> {
    let path = |path: &PathBuf| path.display().to_string();
    vec![
        ("HANDOVER_STORE_CA", path(&files.ca)),
        ("HANDOVER_STORE_CERT", path(&files.cert)),
        ("HANDOVER_STORE_KEY", path(&files.key)),
        ("HANDOVER_TLS_CA", path(&files.ca)),
        ("HANDOVER_TLS_CERT", path(&files.cert)),
        ("HANDOVER_TLS_KEY", path(&files.key)),
    ]
}
